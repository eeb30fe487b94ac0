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
}

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
    network.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(target) else { return };
    let ends = |stream: &TcpStream| stream.try_clone().expect("a socket can be cloned");
    let (from, to, there) = (ends(&client), ends(&server), Arc::clone(network));
    thread::spawn(move || forward(from, to, |_, _| there.pass()));
    forward(server, client, |before, bytes| {
        network.pass();
        network.lie(before, bytes);
    });
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut on_the_way: impl FnMut(usize, &mut [u8])) {
    let mut buffer = vec![0; 64 << 10];
    let mut before = 0;
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        on_the_way(before, &mut buffer[..read]);
        before += read;
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
