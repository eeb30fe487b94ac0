//! What the program under test has logged.

use std::io;
use std::sync::{Mutex, Once};

use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// From here on what is logged is kept; tests of one program share it.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(Kept).init();
    });
}

/// Whether a line has all of `words` in it.
pub fn says(words: &[&str]) -> bool {
    let lines = LINES.lock().unwrap();
    let text = String::from_utf8_lossy(&lines);
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
