//! Who may take part in a cluster, and what it does about everybody else.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cerebro_backend_tcp::worker::{Options, WorkerError, serve_until};
use cerebro_backend_tcp::{Authority, Certificates, Security, TcpBackend};
use cerebro_core::observe::Event;
use futures::StreamExt;
use rcgen::{CertificateParams, Issuer, KeyPair};
use support::experiments::{Recorder, experiment, is_as_if_undisturbed, rates};
use support::proxy::Proxy;
use support::{Worker, driver, log, registry};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore};

const HOUR: Duration = Duration::from_hours(1);

/// An authority with a driver and the workers `one` and `two`.
struct Keys {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("authority")).unwrap();
        authority.issue_driver(HOUR, &folder.path().join("driver")).unwrap();
        for name in ["one", "two"] {
            authority.issue_worker(name, HOUR, &folder.path().join(name)).unwrap();
        }
        Self { folder, authority }
    }

    fn security(&self, name: &str) -> Security {
        Security::MutualTls(Certificates::read(self.folder.path().join(name)).unwrap())
    }

    fn options(&self, driver: SocketAddr, name: &str) -> Options {
        Options::new(driver.to_string()).security(self.security(name))
    }

    fn backend(&self) -> TcpBackend {
        driver().security(self.security("driver")).build().unwrap()
    }
}

/// What becomes of a worker that should be refused.
fn refusal(options: Options) -> String {
    let ended = serve_until(registry(), options, std::future::pending());
    let Err(WorkerError::Refused { reason, .. }) = ended else { panic!("{ended:?}") };
    reason
}

/// The driver serves honest workers still.
fn still_serves(keys: &Keys, backend: TcpBackend) {
    let _worker = Worker::with(registry(), keys.options(backend.address(), "one"));
    let recorder = Recorder::default();
    let builder = experiment(rates(2)).observer(recorder.clone());
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    is_as_if_undisturbed(&result, &recorder);
}

#[test]
fn with_certificates_of_one_authority_everything_runs_over_tls() {
    let keys = Keys::new();
    let backend = driver().workers(2).security(keys.security("driver")).build().unwrap();
    let _workers =
        ["one", "two"].map(|name| Worker::with(registry(), keys.options(backend.address(), name)));
    let recorder = Recorder::default();
    let builder = experiment(rates(4)).observer(recorder.clone());
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert!(result.summary().hops > 0, "States went from worker to worker");
    is_as_if_undisturbed(&result, &recorder);
}

#[test]
fn a_worker_of_another_authority_is_refused() {
    let (keys, others) = (Keys::new(), Keys::new());
    let backend = keys.backend();
    let reason = refusal(others.options(backend.address(), "one"));
    assert!(reason.contains("another authority"), "{reason}");
    still_serves(&keys, backend);
}

/// A certificate of `keys`' authority that was valid until some years ago.
fn issue_expired(keys: &Keys, folder: &Path) {
    let authority = keys.folder.path().join("authority");
    let read = |name: &str| std::fs::read_to_string(authority.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("authority-key.pem")).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Cerebro cluster");
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["late.worker.cerebro".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("authority.pem"), read("authority.pem")).unwrap();
}

/// What a driver says after the handshake to a client of its authority's with these certificates:
/// anything at all means that it has let it in.
fn said_to(keys: &Keys, backend: &TcpBackend, folder: Option<&Path>) -> Vec<u8> {
    let pem = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem(&keys.folder.path().join("driver/authority.pem"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match folder {
        None => config.with_no_client_auth(),
        Some(folder) => {
            let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
            config.with_client_auth_cert(vec![pem(&folder.join("certificate.pem"))], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("driver.cerebro").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(backend.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    // In TLS 1.3 the server looks at the client's certificate after the client's first words.
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let mut said = vec![0; 9];
    let read = stream.read(&mut said).unwrap_or(0);
    said.truncate(read);
    said
}

#[test]
fn an_expired_certificate_and_none_at_all_are_refused() {
    let keys = Keys::new();
    let backend = keys.backend();
    let (good, late) = (keys.folder.path().join("one"), keys.folder.path().join("late"));
    issue_expired(&keys, &late);
    assert!(!said_to(&keys, &backend, Some(&good)).is_empty(), "a good one is let in");
    assert!(said_to(&keys, &backend, Some(&late)).is_empty());
    assert!(said_to(&keys, &backend, None).is_empty());
    let own = Certificates::read(&late).unwrap_err().to_string();
    assert!(own.contains("expired"), "who has it hears of it at once: {own}");
    still_serves(&keys, backend);
}

#[test]
fn a_worker_does_not_serve_a_driver_that_shows_a_workers_certificate() {
    let keys = Keys::new();
    let impostor = driver().security(keys.security("two")).build().unwrap();
    let reason = refusal(keys.options(impostor.address(), "one"));
    assert!(reason.contains("another role"), "{reason}");
}

#[test]
fn a_driver_does_not_pass_for_a_worker_nor_an_unlisted_worker_for_a_listed_one() {
    let keys = Keys::new();
    let backend = keys.backend();
    let reason = refusal(keys.options(backend.address(), "driver"));
    assert!(reason.contains("not a worker's"), "{reason}");
    let listed = driver().security(keys.security("driver")).authorise(["two"]).build().unwrap();
    let reason = refusal(keys.options(listed.address(), "one"));
    assert!(reason.contains("`one`"), "{reason}");
    still_serves(&keys, backend);
}

/// What a worker has said to its driver is said again by somebody who has heard it, and who stays
/// until `answered`.
fn replayed(
    backend: TcpBackend,
    options: impl Fn(SocketAddr) -> Options,
    answered: impl Fn() + Send + 'static,
) {
    let backend = Arc::new(backend);
    let address = backend.address();
    let wire = Proxy::listening(address);
    let _worker = Worker::with(registry(), options(wire.address()));
    let recorder = Recorder::default();
    let mut replayed = false;
    let builder = experiment(rates(2)).observer(recorder.clone());
    let builder = builder.observer(move |_: Duration, event: &Event| {
        if matches!(event, Event::EpochCompleted { .. }) && !replayed {
            replayed = true;
            let heard = wire.heard();
            assert!(heard.iter().any(|words| !words.is_empty()), "there is something to replay");
            let mut said = Vec::new();
            for words in heard {
                let mut stream = TcpStream::connect(address).unwrap();
                // It may close before everything is written.
                let _ = stream.write_all(&words);
                said.push(stream);
            }
            // Who goes at once may not have been listened to.
            answered();
            for stream in said {
                let _ = stream.shutdown(Shutdown::Write);
                until_closed(stream);
            }
        }
    });
    let result = builder.build().unwrap().run_blocking(backend).unwrap();
    is_as_if_undisturbed(&result, &recorder);
    assert_eq!(result.summary().lost_workers, 0, "the worker was not pushed out");
}

#[test]
fn what_a_worker_has_said_cannot_be_said_again_by_who_has_overheard_it() {
    let keys = Keys::new();
    replayed(keys.backend(), |driver| keys.options(driver, "one"), || ());
}

#[test]
fn a_registration_that_was_overheard_in_plain_text_is_refused_too() {
    log::start();
    let refused = || {
        let logged = ["WARN", "a registration was refused", "127.0.0.1", "overheard"];
        assert!(log::comes_to_say(&logged), "{}", log::all());
    };
    replayed(driver().build().unwrap(), |driver| Options::new(driver.to_string()), refused);
}

#[test]
fn refusals_are_logged_with_who_and_why() {
    log::start();
    let (keys, others) = (Keys::new(), Keys::new());
    let listed = driver().security(keys.security("driver")).authorise(["two"]).build().unwrap();
    refusal(keys.options(listed.address(), "one"));
    let logged = |words: &[&str]| assert!(log::comes_to_say(words), "{words:?}: {}", log::all());
    logged(&["WARN", "a registration was refused", "peer=", "`one` is not among the workers"]);
    refusal(others.options(listed.address(), "one"));
    logged(&["WARN", "refused", "127.0.0.1", "authority"]);
}

/// Reads until the other end closes; what it said.
fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut said = Vec::new();
    // A reset is a way of closing, too.
    if let Err(error) = stream.read_to_end(&mut said) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    said
}

#[test]
fn strangers_who_speak_in_plain_text_are_refused_where_tls_is_wanted() {
    let keys = Keys::new();
    let backend = keys.backend();
    for words in
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x01x"]
    {
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        stream.write_all(words).unwrap();
        until_closed(stream);
    }
    still_serves(&keys, backend);
}

#[test]
fn messages_that_are_malformed_or_too_large_close_their_connection_and_nothing_else() {
    let backend = driver().build().unwrap();
    let too_large = [&[0, 0xff, 0xff, 0xff][..], &[0; 1000]].concat();
    let nonsense = [&[0, 0, 0, 9][..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"].concat();
    let not_http = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\xff\xff\xff\xff\xff\xff".to_vec();
    for words in [too_large, nonsense, not_http] {
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        // It may close before everything is written.
        let _ = stream.write_all(&words);
        until_closed(stream);
    }
    let _worker = Worker::start(backend.address());
    let result = experiment(rates(2)).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(result.summary().completed, 2);
}

/// Of the form of a worker's message, with a registration of any bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Registration {
    #[prost(bytes = "vec", tag = "1")]
    register: Vec<u8>,
}

#[test]
fn a_registration_of_many_megabytes_is_refused() {
    log::start();
    let backend = driver().build().unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", backend.address()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(async {
        let mut client = tonic::client::Grpc::new(endpoint.unwrap().connect().await.unwrap());
        client.ready().await.unwrap();
        // A name of so many letters, as the schema has it.
        let register = [&[0x1a, 0x80, 0x80, 0x80, 0x04][..], &vec![b'x'; 8 << 20]].concat();
        let said = endless(Registration { register });
        let path = "/cerebro.v1.Cluster/Attend".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<Registration, Registration>::default();
        let mut answers =
            client.streaming(tonic::Request::new(said), path, codec).await?.into_inner();
        // The first one is the greeting.
        while answers.message().await?.is_some() {}
        Ok::<(), tonic::Status>(())
    });
    assert!(refused.is_err(), "it is not let in");
    let logged = ["WARN", "a registration was refused", "message length too large"];
    assert!(log::comes_to_say(&logged), "{}", log::all());
    let _worker = Worker::start(backend.address());
    let result = experiment(rates(2)).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(result.summary().completed, 2);
}

/// One message, and no end: a worker's session goes on.
fn endless(first: Registration) -> impl futures::Stream<Item = Registration> {
    futures::stream::once(std::future::ready(first)).chain(futures::stream::pending())
}

/// The memory of this process, as far as the system tells.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0) * 1024
}

#[test]
fn a_flood_of_connections_is_cut_at_the_bound() {
    log::start();
    let backend = driver().most_workers(2).build().unwrap();
    let before = resident_bytes();
    // Four connections for each worker are let in, and say nothing.
    let idle: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(backend.address()).unwrap()).collect();
    for _ in 0..2000 {
        let stream = TcpStream::connect(backend.address()).unwrap();
        // Closed at once.
        assert!(until_closed(stream).is_empty());
    }
    let logged = ["WARN", "too many connections are refused", "bound=8"];
    assert!(log::comes_to_say(&logged), "{}", log::all());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes more");
    for stream in idle {
        // Closed when they have said nothing for a while.
        assert!(until_closed(stream).is_empty());
    }
    let _worker = Worker::start(backend.address());
    let result = experiment(rates(2)).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(result.summary().completed, 2);
}

#[test]
fn plain_text_leaves_the_machine_only_when_somebody_says_so() {
    let refused = driver().listen("0.0.0.0:0").build().unwrap_err().to_string();
    assert!(refused.contains("0.0.0.0") && refused.contains("without TLS"), "{refused}");
    let ended = serve_until(
        registry(),
        Options::new("127.0.0.1:1").listen("0.0.0.0:0"),
        std::future::pending(),
    );
    assert!(matches!(ended, Err(WorkerError::Listen { .. })), "{ended:?}");
    let open = driver()
        .listen("0.0.0.0:0")
        .security(Security::PlainTextThatAnybodyCanReadAndForge)
        .build();
    assert!(open.is_ok());
}

#[test]
fn keys_are_for_their_owner_alone_and_never_replaced() {
    let keys = Keys::new();
    let folder = keys.folder.path();
    #[cfg(unix)]
    for file in ["authority/authority-key.pem", "driver/key.pem", "one/key.pem"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(Authority::create(&folder.join("authority")).is_err());
    assert!(keys.authority.issue_worker("one", HOUR, &folder.join("one")).is_err());
    let opened = Authority::open(&folder.join("authority")).unwrap();
    opened.issue_worker("three", HOUR, &folder.join("three")).unwrap();
    let backend = keys.backend();
    let _worker = Worker::with(registry(), keys.options(backend.address(), "three"));
    let result = experiment(rates(1)).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(result.summary().completed, 1);
}
