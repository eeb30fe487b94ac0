//! A network between two processes that can be cut, slowed and made to lie.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Forwards connections to an address.
#[derive(Clone, Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
}

#[derive(Debug, Default)]
struct Network {
    cut: Mutex<bool>,
    healed: Condvar,
    delay: Duration,
    /// Bytes from the target after which the next one is flipped, in one connection only.
    flip: Mutex<Option<usize>>,
    connections: AtomicUsize,
    /// Connections that are still to break, each after so many bytes from the target.
    breaks: Mutex<(usize, usize)>,
    /// One in so many pieces comes as late as if it had been lost and sent again.
    lost: Option<usize>,
    pieces: AtomicUsize,
    /// What clients sent, by connection, where that is kept.
    heard: Option<Mutex<Vec<Vec<u8>>>>,
}

/// The least time after which Linux sends anew what was lost.
const SENT_AGAIN: Duration = Duration::from_millis(200);

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        Self::new(target, Network::default())
    }

    /// Holds what is sent for `delay`.
    pub fn slow(target: SocketAddr, delay: Duration) -> Self {
        Self::new(target, Network { delay, ..Network::default() })
    }

    /// Flips a bit of what the target sends, `after` bytes into the first connection that is long
    /// enough.
    pub fn lying(target: SocketAddr, after: usize) -> Self {
        Self::new(target, Network { flip: Mutex::new(Some(after)), ..Network::default() })
    }

    /// Breaks `count` connections, one after the other, each `after` bytes into what the target sends.
    pub fn breaking(target: SocketAddr, count: usize, after: usize) -> Self {
        Self::new(target, Network { breaks: Mutex::new((count, after)), ..Network::default() })
    }

    /// Loses one in `every` pieces of what is sent, both ways. Whoever speaks TCP sends it again, so
    /// that it comes late, and everything behind it.
    pub fn lossy(target: SocketAddr, every: usize) -> Self {
        Self::new(target, Network { lost: Some(every), ..Network::default() })
    }

    /// Keeps what clients send.
    pub fn listening(target: SocketAddr) -> Self {
        Self::new(target, Network { heard: Some(Mutex::default()), ..Network::default() })
    }

    /// What clients have sent, by connection.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.network.heard.as_ref().map_or(Vec::new(), |heard| heard.lock().unwrap().clone())
    }

    /// How many connections are still to break.
    pub fn still_to_break(&self) -> usize {
        self.network.breaks.lock().unwrap().0
    }

    fn new(target: SocketAddr, network: Network) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let network = Arc::new(network);
        let proxy = Self { address, network: Arc::clone(&network) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), network) = (client, Arc::clone(&network)) else { continue };
                thread::spawn(move || connect(client, target, &network));
            }
        });
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing gets through, and nobody is told.
    pub fn cut(&self) {
        *self.network.cut.lock().unwrap() = true;
    }

    /// What was held up goes through.
    pub fn heal(&self) {
        *self.network.cut.lock().unwrap() = false;
        self.network.healed.notify_all();
    }

    /// Whether it has lied.
    pub fn has_lied(&self) -> bool {
        self.network.flip.lock().unwrap().is_none()
    }

    pub fn connections(&self) -> usize {
        self.network.connections.load(Ordering::SeqCst)
    }
}

impl Network {
    fn pass(&self) {
        let cut = self.cut.lock().unwrap();
        drop(self.healed.wait_while(cut, |cut| *cut).unwrap());
        thread::sleep(self.delay);
        let piece = self.pieces.fetch_add(1, Ordering::SeqCst);
        if self.lost.is_some_and(|every| piece % every == every - 1) {
            thread::sleep(SENT_AGAIN);
        }
    }

    /// Whether the connection breaks here, `before` bytes into it.
    fn breaks(&self, before: usize) -> bool {
        let mut breaks = self.breaks.lock().unwrap();
        let now = breaks.0 > 0 && before >= breaks.1;
        breaks.0 -= usize::from(now);
        now
    }

    fn hear(&self, connection: usize, bytes: &[u8]) {
        if let Some(heard) = &self.heard {
            let mut heard = heard.lock().unwrap();
            if heard.len() <= connection {
                heard.resize(connection + 1, Vec::new());
            }
            heard[connection].extend_from_slice(bytes);
        }
    }

    fn lie(&self, before: usize, bytes: &mut [u8]) {
        let mut flip = self.flip.lock().unwrap();
        if let Some(after) = *flip
            && (before..before + bytes.len()).contains(&after)
        {
            bytes[after - before] ^= 1;
            *flip = None;
        }
    }
}

fn connect(client: TcpStream, target: SocketAddr, network: &Arc<Network>) {
    network.pass();
    let number = network.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(target) else { return };
    let ends = |stream: &TcpStream| stream.try_clone().expect("a socket can be cloned");
    let (from, to, there) = (ends(&client), ends(&server), Arc::clone(network));
    thread::spawn(move || {
        forward(from, to, |_, bytes| {
            there.pass();
            there.hear(number, bytes);
            Goes::On
        });
    });
    forward(server, client, |before, bytes| {
        network.pass();
        network.lie(before, bytes);
        if network.breaks(before) { Goes::NoFurther } else { Goes::On }
    });
}

#[derive(PartialEq, Eq)]
enum Goes {
    On,
    NoFurther,
}

fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    mut on_the_way: impl FnMut(usize, &mut [u8]) -> Goes,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut before = 0;
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        if on_the_way(before, &mut buffer[..read]) == Goes::NoFurther {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        before += read;
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
