//! [`Server`]: takes commands at a socket.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use cerebro_core::experiment::{Command, ExperimentHandle};
use futures::StreamExt;
use futures::executor::block_on;
use serde_json::{Value, json};

/// A request of more bytes than this is none.
const LONGEST: u64 = 1 << 20;

/// Takes commands at a socket until it is dropped, which removes the socket.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes commands for `handle` at `path`; an error if somebody else does so already.
    pub fn start(path: &Path, handle: ExperimentHandle) -> Result<Self, io::Error> {
        let failed = |error: io::Error| {
            let what = format!("cannot take commands at {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        };
        if path.exists() {
            if UnixStream::connect(path).is_ok() {
                let taken = "an experiment takes commands there already; choose another socket";
                return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, taken)));
            }
            remove_stale(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || accept(&listener, &handle, &seen));
        Ok(Self { path: path.to_owned(), over, thread: Some(thread) })
    }
}

/// Removes the socket of a program that ended without doing so, and nothing that is no socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if fs::metadata(path)?.file_type().is_socket() {
        return fs::remove_file(path);
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"))
}

fn accept(listener: &UnixListener, handle: &ExperimentHandle, over: &AtomicBool) {
    for stream in listener.incoming() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let handle = handle.clone();
        std::thread::spawn(move || {
            // Whoever does not wait for the answer has hung up: that is no error.
            let _ = serve(&stream, &handle);
        });
    }
}

fn serve(stream: &UnixStream, handle: &ExperimentHandle) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = Vec::new();
        let read = io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return say(&mut writer, &json!({ "error": "a request is a line of at most 1 MiB" }));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match serde_json::from_slice::<Value>(&line) {
            Ok(request) if request["command"] == "watch" => return watch(&mut writer, handle),
            Ok(request) => carry_out(&request, handle),
            Err(error) => Err(format!("this is no JSON: {error}")),
        };
        let answer = match answer {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => json!({ "error": error }),
        };
        say(&mut writer, &answer)?;
    }
}

fn carry_out(request: &Value, handle: &ExperimentHandle) -> Result<Value, String> {
    match request["command"].as_str() {
        Some("list") => {
            let status = block_on(handle.status()).map_err(|error| error.to_string())?;
            serde_json::to_value(status).map_err(|error| error.to_string())
        }
        Some("stop") => {
            handle.stop();
            Ok(json!({ "answer": "done" }))
        }
        _ => {
            let command: Command = serde_json::from_value(request.clone())
                .map_err(|error| format!("this is no command: {error}"))?;
            let answer = block_on(handle.send(command)).map_err(|error| error.to_string())?;
            serde_json::to_value(answer).map_err(|error| error.to_string())
        }
    }
}

fn watch(writer: &mut impl Write, handle: &ExperimentHandle) -> io::Result<()> {
    let mut events = handle.events();
    say(writer, &json!({ "ok": { "answer": "watching" } }))?;
    while let Some(event) = block_on(events.next()) {
        say(writer, &serde_json::to_value(event)?)?;
    }
    Ok(())
}

fn say(writer: &mut impl Write, value: &Value) -> io::Result<()> {
    writer.write_all(format!("{value}\n").as_bytes())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // The thread waits for a connection: this is one.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        if woken && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
