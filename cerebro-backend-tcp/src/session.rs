//! The driver's end of a worker's session: the gRPC service.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use cerebro_core::WorkerId;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::{Cluster, Outbox};
use crate::protocol::cluster_server;
use crate::protocol::{FromDriver, FromWorker, Greeting, Register, from_driver, from_worker};
use crate::security::{Identity, Security};
use crate::transport::Peer;

/// How long a stranger may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// More than any worker has.
const MOST_SLOTS: u32 = 4096;
/// More messages than this do not wait for a worker to take them.
const MOST_WAITING: usize = 1 << 16;
/// Longer names and addresses are not for people.
const LONGEST_NAME: usize = 255;

/// The service that workers call.
pub(crate) struct Sessions(pub(crate) Arc<Cluster>);

#[tonic::async_trait]
impl cluster_server::Cluster for Sessions {
    type AttendStream = BoxStream<'static, Result<FromDriver, Status>>;

    async fn attend(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let inbound = request.into_inner();
        let cluster = Arc::clone(&self.0);
        let challenge = crate::drawn();
        let (decide, decided) = oneshot::channel();
        tokio::spawn(async move {
            match admit(&cluster, inbound, peer.as_ref(), challenge).await {
                Ok(Admitted { id, to, outbound, inbound }) => {
                    // Where nobody listens any more, the session is about to end.
                    let _ = decide.send(Ok(outbound));
                    let reason = attend(&cluster, id, inbound, &to).await;
                    cluster.session_ended(id, &reason);
                }
                Err(status) => {
                    tracing::warn!(
                        peer = peer.as_ref().map(tracing::field::display),
                        reason = status.message(),
                        "a registration was refused"
                    );
                    let _ = decide.send(Err(status));
                }
            }
        });
        let greeting = from_driver::What::Greeting(Greeting { challenge });
        let greeting = stream::once(ready(Ok(FromDriver { what: Some(greeting) })));
        let rest = decided.map(|decided| match decided {
            Ok(Ok(outbound)) => outbound.map(Ok).boxed(),
            Ok(Err(refusal)) => stream::once(ready(Err(refusal))).boxed(),
            Err(_) => stream::empty().boxed(),
        });
        Ok(Response::new(greeting.chain(rest.flatten_stream()).boxed()))
    }
}

/// A worker that was taken in.
struct Admitted {
    id: WorkerId,
    to: Outbox,
    outbound: BoxStream<'static, FromDriver>,
    inbound: Streaming<FromWorker>,
}

/// Lets a worker in that says who it is, after it was greeted with `challenge`.
async fn admit(
    cluster: &Cluster,
    mut inbound: Streaming<FromWorker>,
    peer: Option<&Peer>,
    challenge: u64,
) -> Result<Admitted, Status> {
    let register = introduction(&mut inbound).await?;
    check(&register, peer, challenge, cluster)?;
    let (to, outbound) = Outbox::new();
    let identity = peer.map_or(Identity::Unknown, |peer| peer.identity.clone());
    let id = cluster.register(register, identity, to.clone())?;
    Ok(Admitted { id, to, outbound: outbound.boxed(), inbound })
}

async fn introduction(inbound: &mut Streaming<FromWorker>) -> Result<Register, Status> {
    let first = timeout(INTRODUCTION, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("a session begins with `Register`"))?;
    match first?.and_then(|message| message.what) {
        Some(from_worker::What::Register(register)) => Ok(register),
        _ => Err(Status::invalid_argument("a session begins with `Register`")),
    }
}

fn check(
    register: &Register,
    peer: Option<&Peer>,
    challenge: u64,
    cluster: &Cluster,
) -> Result<(), Status> {
    if register.version != crate::VERSION {
        return Err(Status::failed_precondition(format!(
            "the driver has version {} of cerebro-backend-tcp and the worker has {}; \
             both must have the same",
            crate::VERSION,
            register.version
        )));
    }
    if register.challenge != challenge {
        return Err(Status::permission_denied(
            "it does not answer to this session's greeting: somebody says what he has overheard",
        ));
    }
    if register.slots == 0 || register.slots > MOST_SLOTS {
        let text = format!("a worker has 1 to {MOST_SLOTS} slots, not {}", register.slots);
        return Err(Status::invalid_argument(text));
    }
    if register.name.len() > LONGEST_NAME || register.address.len() > LONGEST_NAME {
        return Err(Status::invalid_argument("the name or the address is too long"));
    }
    if matches!(cluster.terms.security, Security::MutualTls(_)) {
        let Some(Identity::Worker(name)) = peer.map(|peer| &peer.identity) else {
            return Err(Status::permission_denied("the certificate is not a worker's"));
        };
        let authorised = cluster.terms.authorised.as_ref();
        if authorised.is_some_and(|authorised| !authorised.contains(name)) {
            let text = format!("`{name}` is not among the workers that this driver takes");
            return Err(Status::permission_denied(text));
        }
    }
    Ok(())
}

/// Takes in what the worker says until the session ends; says why it did.
async fn attend(
    cluster: &Cluster,
    id: WorkerId,
    mut inbound: Streaming<FromWorker>,
    to: &Outbox,
) -> String {
    let lease = cluster.terms.lease;
    let mut until = Instant::now() + lease;
    loop {
        let message = match timeout_at(until, inbound.message()).await {
            Err(_) => return format!("it was silent for {:.1} s", lease.as_secs_f64()),
            Ok(Err(status)) => return format!("the connection broke: {}", status.message()),
            Ok(Ok(None)) => return "it closed the connection".to_owned(),
            Ok(Ok(Some(message))) => message,
        };
        if let Err(nonsense) = take_in(cluster, id, message) {
            return format!("what it says does not make sense: {nonsense}");
        }
        // What it makes the driver say must not pile up here.
        if to.waiting() > MOST_WAITING {
            return format!("it has not taken {MOST_WAITING} messages that it was sent");
        }
        // A worker that was told to leave has as long as a lease for that, whatever it says.
        if cluster.knows(id) {
            until = Instant::now() + lease;
        }
    }
}

pub(crate) fn take_in(cluster: &Cluster, id: WorkerId, message: FromWorker) -> Result<(), String> {
    use from_worker::What;
    match message.what {
        Some(What::Beat(_)) => cluster.beat(id),
        Some(What::PartitionLoaded(loaded)) => cluster.partition_loaded(id, &loaded)?,
        Some(What::PartitionFailed(failed)) => cluster.partition_failed(id, &failed)?,
        Some(What::Progress(progress)) => cluster.progress(id, &progress),
        Some(What::UnitEnded(ended)) => cluster.unit_ended(id, ended)?,
        Some(What::StateHeld(held)) => {
            let name = held.state.ok_or("a State without a name")?;
            cluster.state_held(id, name.into());
        }
        Some(What::StateMissed(missed)) => {
            let name = missed.state.ok_or("a State without a name")?;
            cluster.state_missed(id, name.into(), &missed.reason);
        }
        Some(What::Trouble(trouble)) => cluster.trouble(id, trouble.what),
        Some(What::Draining(_)) => cluster.draining(id),
        Some(What::Refused(refused)) => cluster.refused(id, &refused.reason),
        Some(What::Register(_)) => return Err("a second registration".to_owned()),
        None => return Err("an empty message".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::builder::TcpBackendBuilder;

    const CHALLENGE: u64 = 42;

    fn worker() -> Register {
        let version = crate::VERSION.to_owned();
        Register { version, slots: 1, challenge: CHALLENGE, ..Register::default() }
    }

    fn refused(register: &Register) -> String {
        let backend = TcpBackendBuilder::default().listen("127.0.0.1:0").build().unwrap();
        let refused = check(register, None, CHALLENGE, &backend.cluster).unwrap_err();
        refused.message().to_owned()
    }

    #[test]
    fn a_worker_of_another_version_is_refused_and_both_versions_are_named() {
        let reason = refused(&Register { version: "0.0.1-old".to_owned(), ..worker() });
        assert!(reason.contains("0.0.1-old") && reason.contains(crate::VERSION), "{reason}");
    }

    #[test]
    fn a_registration_that_answers_to_another_greeting_is_refused() {
        let reason = refused(&Register { challenge: CHALLENGE + 1, ..worker() });
        assert!(reason.contains("overheard"), "{reason}");
    }

    #[test]
    fn registrations_out_of_bounds_are_refused() {
        for slots in [0, u32::MAX] {
            assert!(refused(&Register { slots, ..worker() }).contains("slots"));
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        assert!(refused(&Register { name: long.clone(), ..worker() }).contains("too long"));
        assert!(refused(&Register { address: long, ..worker() }).contains("too long"));
    }

    #[test]
    fn a_process_that_registers_again_takes_the_place_of_itself() {
        let backend = TcpBackendBuilder::default()
            .listen("127.0.0.1:0")
            .patience(Duration::ZERO)
            .build()
            .unwrap();
        let as_whom = |instance, identity| {
            let (to, _outbound) = Outbox::new();
            backend.cluster.register(Register { instance, ..worker() }, identity, to)
        };
        let register = |instance| as_whom(instance, Identity::Worker("one".to_owned())).unwrap();
        let (first, other, again) = (register(1), register(2), register(1));
        // Whoever has overheard the number cannot push it out.
        let refused = as_whom(1, Identity::Worker("two".to_owned())).unwrap_err();
        assert!(refused.message().contains("another certificate"), "{refused:?}");
        let books = backend.cluster.books();
        let known: Vec<WorkerId> = books.workers.keys().copied().collect();
        assert_eq!(known, [other, again]);
        assert_ne!(first, again, "what it says late is not taken for what it says now");
    }
}
