//! [`Security`]: who may talk to whom, and who listens in.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

/// The name in a driver's certificate.
pub(crate) const DRIVER: &str = "driver.cerebro";
/// The name in every worker's certificate; its own name stands before it, as in
/// `rack1-node3.worker.cerebro`.
pub(crate) const WORKER: &str = "worker.cerebro";

/// Protocols that a TLS connection chooses from: calls by gRPC.
pub(crate) const CALLS: &[u8] = b"h2";
/// Protocols that a TLS connection chooses from: States.
pub(crate) const BULK: &[u8] = b"cerebro-bulk";

/// How the connections of a cluster are protected.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Security {
    /// Plain text, between processes of one machine only: every address must be a loopback
    /// address. The default. Any user of the machine can connect.
    #[default]
    Loopback,
    /// TLS 1.3 in which both ends show certificates of the cluster's own authority.
    MutualTls(Certificates),
    /// Plain text over a network. Whoever reaches the ports can read the models, change them and
    /// run units on the workers. For networks that nobody else can reach.
    PlainTextThatAnybodyCanReadAndForge,
}

/// The certificates of one process: the cluster's authority and what it has issued.
#[derive(Clone)]
pub struct Certificates {
    folder: PathBuf,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Certificates {
    /// Reads `authority.pem`, `certificate.pem` and `key.pem` from a folder; an error if the
    /// certificate has expired or is not the authority's.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, SecurityError> {
        let folder = folder.as_ref();
        let pem = |name: &str| -> Result<Vec<CertificateDer<'static>>, SecurityError> {
            let path = folder.join(name);
            let certificates = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
            let certificates: Vec<_> = certificates.map_err(|source| SecurityError::Read {
                path: path.clone(),
                source: source.into(),
            })?;
            if certificates.is_empty() {
                let source = "it holds no certificate".into();
                return Err(SecurityError::Read { path, source });
            }
            Ok(certificates)
        };
        let path = folder.join("key.pem");
        let key = PrivateKeyDer::from_pem_file(&path)
            .map_err(|source| SecurityError::Read { path, source: source.into() })?;
        Self::new(folder, &pem("authority.pem")?, &pem("certificate.pem")?, &key)
            .map_err(|source| SecurityError::Use { folder: folder.to_owned(), source })
    }

    fn new(
        folder: &Path,
        authority: &[CertificateDer<'static>],
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            roots.add(certificate.clone())?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build()?;
        // Others would refuse it, and only say that the connection is closed.
        let own = verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now());
        own.map_err(|error| meaning(&error).map_or_else(|| error.to_string(), str::to_owned))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        server.alpn_protocols = vec![CALLS.to_vec(), BULK.to_vec()];
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
        Ok(Self { folder: folder.to_owned(), server: Arc::new(server), client: Arc::new(client) })
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Security {
    /// Refuses addresses that plain text must not go to.
    pub(crate) fn check(&self, address: SocketAddr) -> io::Result<()> {
        match self {
            Security::Loopback if !address.ip().is_loopback() => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{address} is not a loopback address, and without TLS anybody on the network \
                     could read the models and run units; give the certificates of the cluster"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Who is at the other end, as far as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Plain text: nobody knows.
    Unknown,
    Driver,
    Worker(String),
    /// A certificate of the cluster's authority that names neither.
    Other,
}

impl Identity {
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(certificate) = certificates.and_then(<[_]>::first) else { return Self::Unknown };
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
            return Self::Other;
        };
        let names: Vec<&str> = certificate.valid_dns_names().collect();
        if names.contains(&DRIVER) {
            return Self::Driver;
        }
        let own = names.iter().find_map(|name| name.strip_suffix(WORKER)?.strip_suffix('.'));
        own.map_or(Self::Other, |name| Self::Worker(name.to_owned()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Unknown => f.write_str("without a certificate"),
            Identity::Driver => f.write_str("a driver"),
            Identity::Worker(name) => write!(f, "worker `{name}`"),
            Identity::Other => f.write_str("neither driver nor worker"),
        }
    }
}

/// The name that a certificate at the other end must have.
pub(crate) fn server_name(name: &'static str) -> ServerName<'static> {
    ServerName::try_from(name).expect("the names above are DNS names")
}

/// Why certificates cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A file that cannot be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificates that do not fit each other.
    #[error("the certificates in {} cannot be used: {source}", folder.display())]
    Use {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a TLS error, somewhere among the causes of `error`, means for people: libraries say only
/// that a connection was closed.
pub(crate) fn explain(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return meaning(error);
        }
        if let Some(error) = inner.and_then(|inner| explain(inner)) {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

fn meaning(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. })
        | Error::AlertReceived(Alert::CertificateExpired) => {
            Some("the certificate has expired; issue a new one")
        }
        Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature)
        | Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            Some("the certificate is of another authority than this cluster's")
        }
        Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => Some("the certificate is one for another role: driver and workers have their own"),
        Error::NoCertificatesPresented | Error::AlertReceived(Alert::CertificateRequired) => {
            Some("no certificate was shown, and this cluster wants one from everybody")
        }
        Error::InvalidMessage(_) | Error::AlertReceived(Alert::ProtocolVersion) => {
            Some("the other end does not speak TLS 1.3")
        }
        _ => None,
    }
}
