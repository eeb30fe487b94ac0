//! How figures are printed for people: few digits, no control characters, a given width.

use std::time::Duration;

use crate::config::{Config, Value};

/// A metric or hyperparameter with four digits or so.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        format!("{value}")
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.3e}")
    } else if size >= 1000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}

/// A hyperparameter in as few characters as tell it.
pub(crate) fn hyperparameter(value: &Value) -> String {
    match value {
        Value::Float(value) if value.is_finite() && *value != 0.0 => {
            let short: f64 = format!("{value:.2e}").parse().unwrap_or(*value);
            Value::Float(short).to_string()
        }
        Value::List(values) => {
            format!("[{}]", values.iter().map(hyperparameter).collect::<Vec<_>>().join(", "))
        }
        other => clean(&other.to_string()),
    }
}

/// `name=value` for every hyperparameter of a Config, numbers with three digits: for people to read, as
/// in a [`Leaderboard`](crate::observe::Leaderboard).
///
/// ```
/// use cerebro_core::Config;
/// use cerebro_core::observe::hyperparameters;
///
/// let config = Config::new().with("batch_size", 32).with("learning_rate", 0.001_281_227_6);
/// assert_eq!(hyperparameters(&config).collect::<Vec<_>>().join(" "), "batch_size=32 learning_rate=0.00128");
/// ```
pub fn hyperparameters(config: &Config) -> impl Iterator<Item = String> {
    config.iter().map(|(name, value)| format!("{}={}", clean(name), hyperparameter(value)))
}

/// `4.2 s`, `12:07`, `1:02:03`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    clock(duration)
}

/// `0:04`, `12:07`, `1:02:03`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// `12,345`.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3.4 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// `1 trial`, `2 trials`.
pub(crate) fn count(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// The text in one line: control characters, which could move a terminal's cursor, become spaces.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text in one line of at most `width` characters.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= width {
        return text;
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The words, in lines of at most `width` characters; a longer word goes on in the next line.
pub(crate) fn wrap(words: impl IntoIterator<Item = String>, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let word: Vec<char> = clean(&word).chars().collect();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.len() <= width => {
                line.push(' ');
                line.extend(word);
            }
            _ => lines.extend(word.chunks(width).map(|part| part.iter().collect::<String>())),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_few_digits_and_their_unit() {
        assert_eq!(number(0.980_649_3), "0.9806");
        assert_eq!(number(-12_345.678), "-12345.7");
        assert_eq!(number(3.0e-7), "3.000e-7");
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(hyperparameter(&Value::from(0.123_456)), "0.123");
        assert_eq!(hyperparameter(&Value::from(1.234_5e-5)), "1.23e-5");
        assert_eq!(hyperparameter(&Value::from([64, 32])), "[64, 32]");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(123), "123");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(duration(Duration::from_millis(4230)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn text_from_elsewhere_cannot_move_the_cursor_or_grow_too_wide() {
        assert_eq!(fit("a\u{1b}[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(fit("abcdef", 4), "abc…");
        let lines = wrap(["aaa", "bb", "cccccccc"].map(str::to_owned), 6);
        assert_eq!(lines, ["aaa bb", "cccccc", "cc"]);
    }
}
