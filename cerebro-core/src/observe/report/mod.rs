//! [`HtmlReport`]: the whole experiment in one page for a browser.

mod history;
mod importance;
mod page;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::history::History;
use super::error::make_folder_of;
use super::json_lines::each_event;
use super::{Event, ObserveError, Observer, OutputError};

const WHAT: &str = "the report";

impl History {
    /// Takes note of the events in a file.
    fn read(&mut self, events: &Path) -> Result<(), OutputError> {
        each_event(events, |timed| {
            self.observe(timed.at, &timed.event);
            ControlFlow::Continue(())
        })
    }
}

/// Writes `report.html`: the whole experiment in one page for a browser.
///
/// It holds the headline figures, the leaderboard, learning curves, parallel coordinates of the
/// hyperparameters, how much each hyperparameter mattered, the schedule by worker, and who was
/// cloned from whom. Pointing at a trial anywhere shows it everywhere. The page needs nothing but
/// itself: no network, no other file. It is written when the experiment ends, and on the way if
/// asked for with [`every`](Self::every); always whole or not at all.
///
/// ```
/// use cerebro_core::observe::HtmlReport;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("report.html");
/// let report = HtmlReport::create(&path)?; // give it to the experiment as an observer
/// assert!(std::fs::read_to_string(&path)?.starts_with("<!DOCTYPE html>"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HtmlReport {
    path: PathBuf,
    history: History,
    every: Option<Duration>,
    written: Duration,
}

impl HtmlReport {
    /// Will write to `path`, and begins with a page that is still empty, so that an unwritable folder
    /// is known at once. A report that is there already stays until there is more to show: an
    /// experiment that is refused leaves it as it was. Makes the folder if it is absent.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let path = path.into();
        make_folder_of(WHAT, &path)?;
        let report =
            Self { path, history: History::default(), every: None, written: Duration::ZERO };
        if report.path.is_file() {
            let partial = report.partial();
            std::fs::write(&partial, "")
                .and_then(|()| std::fs::remove_file(&partial))
                .map_err(OutputError::write(WHAT, &report.path))?;
        } else {
            report.write()?;
        }
        Ok(report)
    }

    /// Also shows the schedule of the processes before this one, if the experiment is resumed and the file
    /// `events` that [`JsonLines`](super::JsonLines) wrote is of the same experiment. Without it the
    /// schedule begins where the experiment was resumed, and says so; trials and curves are whole
    /// anyhow.
    pub fn after(mut self, events: impl AsRef<Path>) -> Self {
        let events = events.as_ref();
        if let Err(error) = self.history.read(events) {
            tracing::warn!(%error, "the report begins where the experiment was resumed");
            self.history = History::default();
        }
        self
    }

    /// Also writes the page while the experiment runs, at most once per `interval`.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// Makes the report `report` from the file `events` that [`JsonLines`](super::JsonLines) wrote.
    pub fn rebuild(
        events: impl AsRef<Path>,
        report: impl Into<PathBuf>,
    ) -> Result<(), OutputError> {
        let mut history = History::default();
        history.read(events.as_ref())?;
        let mut report = Self::create(report)?;
        report.history = history;
        report.write()
    }

    /// The page as it is now.
    pub fn to_html(&self) -> String {
        page::html(&self.history)
    }

    /// Where the page is until it is whole.
    fn partial(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        self.path.with_file_name(name)
    }

    /// Writes the page beside its place and moves it there, so that nobody sees half of it.
    fn write(&self) -> Result<(), OutputError> {
        let partial = self.partial();
        std::fs::write(&partial, self.to_html())
            .and_then(|()| std::fs::rename(&partial, &self.path))
            .map_err(|error| {
                // What is there of it is of no use; that it stays there is no second error.
                let _ = std::fs::remove_file(&partial);
                OutputError::write(WHAT, &self.path)(error)
            })
    }
}

impl Observer for HtmlReport {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        self.history.observe(at, event);
        let due = match event {
            Event::ExperimentEnded { .. } => true,
            Event::EpochCompleted { .. } => {
                self.every.is_some_and(|interval| at >= self.written + interval)
            }
            _ => false,
        };
        if due {
            self.write()?;
            self.written = at;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Command, Start};
    use crate::observe::synthetic::Synthetic;
    use crate::observe::{JsonLines, TimedEvent, TrialStatus};
    use crate::{Config, Seed, TrialId};

    fn report(events: &[TimedEvent]) -> String {
        let mut history = History::default();
        for TimedEvent { at, event } in events {
            history.observe(*at, event);
        }
        page::html(&history)
    }

    fn data(html: &str) -> serde_json::Value {
        let start = html.find("<script type=\"application/json\"").unwrap();
        let start = start + html[start..].find('>').unwrap() + 1;
        let end = start + html[start..].find("</script>").unwrap();
        serde_json::from_str(&html[start..end]).unwrap()
    }

    #[test]
    fn the_page_holds_every_trial_and_every_unit() {
        let events = Synthetic::default().events();
        let data = data(&report(&events));
        let trials = data["trials"].as_array().unwrap();
        assert_eq!(trials.len(), 12);
        for (number, trial) in trials.iter().enumerate() {
            assert_eq!(trial["id"], number);
        }
        let begun = events.iter().filter(|t| matches!(t.event, Event::UnitStarted { .. })).count();
        let columns = data["bar_columns"].as_array().unwrap().len();
        assert_eq!(data["bars"].as_array().unwrap().len(), begun * columns);
        assert_eq!(trials[1]["status"], "failed");
        assert!(trials[1]["reason"].as_str().unwrap().contains("NaN"));
        assert_eq!(trials[11]["parent"], 0);
        assert!(trials[1..].iter().any(|trial| !trial["exploits"].as_array().unwrap().is_empty()));
        // The first validation of trial 3 is no number: its curve has a gap there.
        assert!(trials[3]["curve"][0].as_array().unwrap().iter().any(serde_json::Value::is_null));
        assert!(trials[3]["best"][0].is_number());
    }

    /// The page's document after its script ran in a headless browser, and what the script said on
    /// the console; none where no browser is installed.
    fn browse(html: &str, dark: bool) -> Option<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("report.html");
        std::fs::write(&page, html).unwrap();
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let page = format!("file://{}", page.display());
        ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|browser| {
            let output = std::process::Command::new(browser)
                .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
                .args(["--disable-background-networking", "--disable-component-update"])
                .args(["--disable-sync", "--disable-quic", "--enable-logging=stderr"])
                .args(["--virtual-time-budget=2000", "--window-size=1400,1000"])
                .args([scheme.as_str(), &profile, "--dump-dom", &page])
                .output()
                .ok()?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let said = said.lines().filter(|line| line.contains("CONSOLE")).collect::<String>();
            Some((String::from_utf8_lossy(&output.stdout).into_owned(), said))
        })
    }

    #[test]
    fn a_browser_draws_every_trial_in_light_and_dark_and_finds_no_error() {
        let one = Synthetic { trials: 1, epochs: 1, workers: 1, train: 1, validation: 1 };
        for (events, dark) in [
            (Synthetic::default().events(), false),
            (Synthetic::default().events(), true),
            (one.events(), false),
            (Vec::new(), false),
        ] {
            let html = report(&events);
            let trials = data(&html)["trials"].as_array().unwrap().len();
            let Some((document, said)) = browse(&html, dark) else {
                eprintln!("skipped: no Chromium is installed");
                return;
            };
            assert_eq!(said, "");
            let section = |id: &str| {
                let start = document.find(&format!("<section id=\"{id}\"")).unwrap();
                &document[start..start + document[start..].find("</section>").unwrap()]
            };
            assert_eq!(section("leaderboard").matches("<td").count() % trials.max(1), 0);
            assert_eq!(section("leaderboard").matches("<span class=\"swatch\"").count(), trials);
            assert_eq!(section("curves").matches("class=\"trial\"").count(), trials);
            if trials > 1 {
                assert_eq!(section("parallel").matches("class=\"trial\"").count(), trials);
                assert!(section("lineage").contains("trial-11"));
                assert!(section("importance").contains("learning_rate"));
            }
        }
    }

    #[test]
    fn the_page_needs_no_network_and_no_text_of_the_experiment_becomes_markup() {
        let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{script}}";
        let mut events = Synthetic::default().events();
        let at = events.last().unwrap().at;
        let config = Config::new().with(evil, evil);
        let (trial, seed) = (TrialId(99), Seed(1));
        let started = Event::TrialStarted { trial, config, seed, parent: None };
        let status = TrialStatus::Failed { reason: evil.to_owned() };
        events.push(TimedEvent { at, event: started });
        events.push(TimedEvent { at, event: Event::TrialStatus { trial, status } });
        if let Event::ExperimentStarted { name, .. } = &mut events[9].event {
            evil.clone_into(name);
        } else {
            panic!("the tenth event is the start");
        }
        let html = report(&events);
        assert_eq!(html.matches("</script>").count(), 2);
        assert!(!html.contains("<img"));
        assert_eq!(data(&html)["name"], evil);
        let title = &html[html.find("<title>").unwrap()..html.find("</title>").unwrap()];
        assert!(title.contains("&lt;/script&gt;"), "{title}");
        // The name of the SVG namespace is no address that a browser asks for, and `url(#` a place
        // in the page.
        let html = html.replace("http://www.w3.org/2000/svg", "").replace("url(#", "");
        for address in ["http:", "https:", "@import", "url(", "fetch(", "XMLHttpRequest"] {
            assert!(!html.contains(address), "{address}");
        }
        assert!(!html.contains("<script src") && !html.contains("<link"));
    }

    #[test]
    fn the_page_of_200_trials_is_below_2_megabytes() {
        let size = Synthetic { trials: 200, epochs: 10, workers: 8, train: 8, validation: 4 };
        let events = size.events();
        let html = report(&events);
        assert!(html.len() < 2_000_000, "{}", html.len());
        assert!(data(&html)["bars_left_out"].as_u64().unwrap() > 0);
    }

    #[test]
    fn an_experiment_with_one_trial_or_none_has_a_page_too() {
        let one = Synthetic { trials: 1, epochs: 1, workers: 1, train: 1, validation: 1 };
        assert_eq!(data(&report(&one.events()))["trials"].as_array().unwrap().len(), 1);
        assert_eq!(data(&report(&[]))["trials"].as_array().unwrap().len(), 0);
    }

    #[test]
    fn the_page_is_complete_at_every_instant_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out").join("report.html");
        let observer = HtmlReport::create(&path).unwrap();
        let mut observer = observer.every(Duration::from_secs(5));
        let mut versions = 0;
        let mut last = String::new();
        for TimedEvent { at, event } in Synthetic::default().events() {
            observer.observe(at, &event).unwrap();
            let html = std::fs::read_to_string(&path).unwrap();
            assert!(html.ends_with("</html>\n"));
            if html != last {
                versions += 1;
                last = html;
            }
        }
        assert!(versions > 3, "{versions}");
        assert_eq!(data(&last)["finished"], true);
        assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn a_clone_with_new_weights_is_told_from_one_with_those_of_its_parent() {
        let mut events = Synthetic::default().events();
        let at = events.last().unwrap().at;
        for (number, start) in [(90, Start::Cold), (91, Start::Best)] {
            let (trial, changes) = (TrialId(0), Config::new());
            let command = Command::CloneTrial { trial, changes, start };
            let (config, seed, parent) = (Config::new(), Seed(1), Some(trial));
            let started = Event::TrialStarted { trial: TrialId(number), config, seed, parent };
            events.push(TimedEvent { at, event: Event::Commanded { command } });
            events.push(TimedEvent { at, event: started });
        }
        let data = data(&report(&events));
        let cold = |trial: &serde_json::Value| trial["cold"] == true;
        let trials = data["trials"].as_array().unwrap();
        assert_eq!(trials.iter().map(cold).collect::<Vec<_>>()[11..], [false, true, false]);
    }

    #[test]
    fn an_earlier_report_stays_until_there_is_more_to_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        std::fs::write(&path, "of an earlier experiment").unwrap();
        let mut observer = HtmlReport::create(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "of an earlier experiment");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for TimedEvent { at, event } in Synthetic::default().events() {
            observer.observe(at, &event).unwrap();
        }
        assert_eq!(data(&std::fs::read_to_string(&path).unwrap())["finished"], true);
    }

    #[test]
    fn a_report_made_again_from_json_lines_is_the_same() {
        // With a folder named here, the report stays there to be looked at in a browser.
        let kept = std::env::var_os("CEREBRO_SYNTHETIC_REPORT").map(PathBuf::from);
        let folder = tempfile::tempdir().unwrap();
        let folder = kept.as_deref().unwrap_or(folder.path());
        let (first, again) = (folder.join("report.html"), folder.join("again.html"));
        let events = folder.join("events.jsonl");
        let mut report = HtmlReport::create(&first).unwrap();
        let mut lines = JsonLines::create(&events).unwrap();
        let size = Synthetic { trials: 40, epochs: 10, workers: 4, train: 8, validation: 4 };
        for TimedEvent { at, event } in size.events() {
            report.observe(at, &event).unwrap();
            lines.observe(at, &event).unwrap();
        }
        HtmlReport::rebuild(&events, &again).unwrap();
        let (first, again) = (std::fs::read(first).unwrap(), std::fs::read(again).unwrap());
        assert!(first == again, "{} and {} bytes", first.len(), again.len());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = HtmlReport::create(file.join("report.html")).unwrap_err();
        assert!(error.to_string().contains("choose a folder"), "{error}");
        // A folder in the place of the report: what was written beside it does not stay.
        std::fs::create_dir_all(folder.path().join("taken.html/inside")).unwrap();
        assert!(HtmlReport::create(folder.path().join("taken.html")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
