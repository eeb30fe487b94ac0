//! A schedule as a picture: one row per worker, one bar per unit, one colour per trial.

use std::fmt::Write as _;
use std::time::Duration;

use super::run::{Ending, Span};
use crate::id::Split;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 22.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 30.0;
/// Room for half of the last time's name.
const RIGHT: f64 = 40.0;

/// An SVG of the spans; each bar's tooltip names its unit.
///
/// Training units are solid, validation units pale, failed units have a red frame, and those that
/// another attempt was faster at a black one.
pub fn gantt(spans: &[Span], makespan: Duration) -> String {
    let mut lanes: Vec<(u32, Vec<Duration>)> = Vec::new();
    let mut workers: Vec<u32> = spans.iter().map(|span| span.worker.0).collect();
    workers.sort_unstable();
    workers.dedup();
    lanes.extend(workers.iter().map(|&worker| (worker, Vec::new())));

    let mut ordered: Vec<&Span> = spans.iter().collect();
    ordered.sort_by_key(|span| (span.start, span.worker));
    let mut placed = Vec::with_capacity(spans.len());
    for span in ordered {
        let at = workers.binary_search(&span.worker.0).expect("every span's worker was listed");
        let slots = &mut lanes[at].1;
        let lane = slots.iter().position(|&end| end <= span.start).unwrap_or_else(|| {
            slots.push(Duration::ZERO);
            slots.len() - 1
        });
        slots[lane] = span.end;
        placed.push((at, lane, span));
    }

    let offsets: Vec<usize> = lanes
        .iter()
        .scan(0, |rows, (_, slots)| Some(std::mem::replace(rows, *rows + slots.len().max(1))))
        .collect();
    let rows: usize = lanes.iter().map(|(_, slots)| slots.len().max(1)).sum();
    let scale = (WIDTH - LEFT - RIGHT) / makespan.as_secs_f64().max(f64::MIN_POSITIVE);
    let height = TOP + ROW * rows as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for tick in 0..=10 {
        let seconds = makespan.as_secs_f64() * f64::from(tick) / 10.0;
        let x = LEFT + seconds * scale;
        write_line(
            &mut svg,
            format_args!(
                "<path d=\"M{x:.1} {TOP}V{height}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"20\" text-anchor=\"middle\">{seconds:.1} s</text>"
            ),
        );
    }
    for ((worker, _), offset) in lanes.iter().zip(&offsets) {
        let y = TOP + ROW * (*offset as f64) + 15.0;
        write_line(&mut svg, format_args!("<text x=\"4\" y=\"{y}\">worker-{worker}</text>"));
    }
    for (at, lane, span) in placed {
        let x = LEFT + span.start.as_secs_f64() * scale;
        let width = (span.end.saturating_sub(span.start).as_secs_f64() * scale).max(0.2);
        let y = TOP + ROW * (offsets[at] + lane) as f64 + 2.0;
        // Golden-angle hues keep neighbouring trials apart.
        let hue = (span.unit.trial.0 as f64 * 137.508) % 360.0;
        let opacity = if span.unit.split == Split::Train { 0.9 } else { 0.35 };
        let stroke = match span.ending {
            Ending::Completed => "#fff",
            Ending::Failed => "#d00",
            Ending::Superseded => "#000",
        };
        write_line(
            &mut svg,
            format_args!(
                "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" fill=\"hsl({hue:.0} 65% 55%)\" fill-opacity=\"{opacity}\" stroke=\"{stroke}\" stroke-width=\".5\"><title>{}</title></rect>",
                ROW - 4.0,
                span.unit
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn write_line(svg: &mut String, line: std::fmt::Arguments<'_>) {
    svg.write_fmt(line).expect("writing to a String does not fail");
    svg.push('\n');
}
