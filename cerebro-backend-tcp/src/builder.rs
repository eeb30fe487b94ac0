//! [`TcpBackendBuilder`]: where the driver listens, for whom it waits and what it asks of them.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_core::Blueprint;
use cerebro_core::backend::BackendError;
use futures::channel::mpsc as events;
use futures::stream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::transport::Server;

use crate::backend::TcpBackend;
use crate::bulk;
use crate::cluster::{Cluster, Terms};
use crate::protocol::cluster_server::ClusterServer;
use crate::relay::take_over;
use crate::security::Security;
use crate::session::Sessions;
use crate::transport::{Connection, Listeners, accept};

/// Frames of this size carry a registration with many States in one piece.
const FRAME: u32 = 1 << 20;

/// How the driver of a cluster is set up.
#[derive(Clone, Debug)]
pub struct TcpBackendBuilder {
    pub(crate) listen: String,
    pub(crate) workers: usize,
    pub(crate) blueprint: Option<Blueprint>,
    pub(crate) data: Option<String>,
    terms: Terms,
}

impl Default for TcpBackendBuilder {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7700".to_owned(),
            workers: 1,
            blueprint: None,
            data: None,
            terms: Terms {
                replicas: 1,
                lease: Duration::from_secs(10),
                patience: Duration::from_mins(10),
                most_workers: 4096,
                most_state_bytes: 64 << 30,
                security: Security::Loopback,
                lending: true,
                authorised: None,
            },
        }
    }
}

impl TcpBackendBuilder {
    /// Where workers dial the driver. The default is `127.0.0.1:7700`; port 0 takes a free one,
    /// which [`TcpBackend::address`] tells.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// For how many workers the start waits, so that partitions are spread over all of them. The
    /// default is 1. Workers that come later are given their share then.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// On how many workers each partition is placed. The default is 1, pure model hopping. With
    /// more, the loss of a worker need not be waited out until its partitions are loaded elsewhere.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.terms.replicas = replicas.max(1);
        self
    }

    /// A worker that is silent for this long is taken for lost. The default is 10 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.terms.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// How long to wait for workers, at the start and when there are too few to go on. The default
    /// is 10 minutes.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.terms.patience = patience;
        self
    }

    /// What workers make their models from, where the experiment's builder does not say so itself
    /// by [`ModelBuilder::blueprint`](cerebro_core::ModelBuilder::blueprint): the name of a model
    /// in their registry, and the bytes that it is made of.
    pub fn model(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.blueprint = Some(Blueprint { name: name.into(), bytes: bytes.into() });
        self
    }

    /// Where workers find the data set, where the experiment's data set does not say so itself by
    /// [`Dataset::url`](cerebro_core::data::Dataset::url).
    pub fn data(mut self, url: impl Into<String>) -> Self {
        self.data = Some(url.into());
        self
    }

    /// Who may connect, and who listens in. The default is plain text on loopback only.
    pub fn security(mut self, security: Security) -> Self {
        self.terms.security = security;
        self
    }

    /// Whether workers of this machine and this user may read what the driver holds where it lies in
    /// its memory, on Linux. The default is yes; otherwise it is sent to them, as to all others.
    pub fn lending(mut self, lending: bool) -> Self {
        self.terms.lending = lending;
        self
    }

    /// The workers that may register, by the names in their certificates. The default is every
    /// worker that the cluster's authority has given one.
    pub fn authorise<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        self.terms.authorised = Some(names);
        self
    }

    /// More workers than this are refused. The default is 4096.
    pub fn most_workers(mut self, count: usize) -> Self {
        self.terms.most_workers = count;
        self
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The backend, listening: workers may come from here on.
    pub fn build(self) -> Result<TcpBackend, BackendError> {
        if self.workers == 0 {
            return Err(BackendError::NoWorkers { backend: crate::cluster::NAME });
        }
        let failed = |source: std::io::Error| BackendError::Other {
            context: format!("listening for workers on {}", self.listen),
            source: source.into(),
        };
        let security = self.terms.security.clone();
        let listener = bind(&self.listen, &security).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // It moves messages; a second thread would be woken more often than it helps.
            .worker_threads(1)
            .thread_name("cerebro-driver")
            .enable_all()
            .build()
            .map_err(failed)?;
        let (events, receiver) = events::unbounded();
        let (relays, relayed) = events::unbounded();
        let cluster = Arc::new(Cluster::new(self.terms.clone(), events, relays));
        runtime.spawn(take_over(Arc::clone(&cluster), relayed));
        self.serve(&runtime, listener, &cluster).map_err(failed)?;
        Ok(TcpBackend {
            runtime: Some(runtime),
            cluster,
            address,
            events: Mutex::new(Some(receiver)),
            options: self,
        })
    }

    fn serve(
        &self,
        runtime: &Runtime,
        listener: TcpListener,
        cluster: &Arc<Cluster>,
    ) -> std::io::Result<()> {
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (calls, mut incoming) = mpsc::channel::<std::io::Result<Connection>>(64);
        let (bulk, fetches) = mpsc::channel(64);
        // One for its session and some for its fetches.
        let bound = self.terms.most_workers.saturating_mul(4);
        let listeners = Listeners::new(listener, self.terms.lending)?;
        runtime.spawn(accept(listeners, self.terms.security.clone(), bound, calls, bulk));
        runtime.spawn(bulk::serve(fetches, Arc::clone(cluster) as _));
        let service = ClusterServer::new(Sessions(Arc::clone(cluster)));
        let incoming = stream::poll_fn(move |context| incoming.poll_recv(context));
        let server = Server::builder()
            .max_frame_size(FRAME)
            .max_concurrent_streams(4)
            .http2_max_header_list_size(16 << 10)
            .http2_keepalive_interval(Some(self.terms.lease))
            .http2_keepalive_timeout(Some(self.terms.lease))
            .serve_with_incoming(service, incoming);
        runtime.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the driver can take no more workers");
            }
        });
        Ok(())
    }
}

/// Binds the first address of `address` that `security` allows.
pub(crate) fn bind(address: &str, security: &Security) -> std::io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    for address in &addresses {
        security.check(*address)?;
    }
    let listener = TcpListener::bind(&addresses[..])?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
