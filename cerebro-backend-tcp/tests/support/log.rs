//! What the program under test has logged.

use std::io;
use std::sync::{Condvar, Mutex, Once};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();

/// From here on what is logged is kept; tests of one program share it.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(Kept).init();
    });
}

/// Whether a line has all of `words` in it.
pub fn says(words: &[&str]) -> bool {
    has(&LINES.lock().unwrap(), words)
}

/// Waits for a line that has all of `words` in it; `false` if there is none for a minute.
pub fn comes_to_say(words: &[&str]) -> bool {
    let lines = LINES.lock().unwrap();
    let waited = MORE.wait_timeout_while(lines, Duration::from_mins(1), |lines| !has(lines, words));
    !waited.unwrap().1.timed_out()
}

fn has(lines: &[u8], words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(lines);
    text.lines().any(|line| words.iter().all(|word| line.contains(word)))
}

/// Everything so far, for the message of a test that fails.
pub fn all() -> String {
    String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned()
}

struct Kept;

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        MORE.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
