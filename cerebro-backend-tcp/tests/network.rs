//! The network is cut, slow, or lies; addresses are refused; every trial ends all the same.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use cerebro_backend_tcp::worker::Options;
use cerebro_backend_tcp::{TcpBackend, TcpBackendBuilder};
use cerebro_core::observe::Event;
use support::experiments::{
    Recorder, TRAIN, VALIDATION, experiment, is_as_if_undisturbed, rates, tells_of_losses,
};
use support::faulty::{self, Fault};
use support::gate::Gate;
use support::proxy::Proxy;
use support::{Reserved, Worker, driver};

/// A driver of trials whose States take several chunks.
fn large_states() -> TcpBackendBuilder {
    driver().model("faulty", [])
}

fn options(driver: SocketAddr) -> Options {
    Options::new(driver.to_string()).threads_per_slot(1)
}

fn worker(driver: SocketAddr, change: impl FnOnce(Options) -> Options) -> Worker {
    Worker::with(faulty::registry(Fault::None, PathBuf::new()), change(options(driver)))
}

fn run(
    backend: TcpBackend,
    mut on_event: impl FnMut(&Event) + Send + 'static,
) -> cerebro_core::experiment::ExperimentResult {
    let recorder = Recorder::default();
    let builder = experiment(rates(4)).observer(recorder.clone());
    let builder = builder.observer(move |_: Duration, event: &Event| on_event(event));
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    is_as_if_undisturbed(&result, &recorder);
    result
}

#[test]
fn a_worker_that_is_cut_off_is_lost_and_comes_back_when_the_network_does() {
    let backend = large_states().workers(2).lease(Duration::from_secs(2)).build().unwrap();
    let proxy = Proxy::to(backend.address());
    let _workers =
        [worker(backend.address(), |options| options), worker(proxy.address(), |options| options)];
    let mut cut = false;
    let result = run(backend, move |event| match event {
        Event::EpochCompleted { .. } if !cut => {
            cut = true;
            proxy.cut();
        }
        Event::WorkerLost { .. } => proxy.heal(),
        _ => {}
    });
    // On a machine that is busy enough, a lease may run out for no other reason.
    assert!(result.summary().lost_workers >= 1);
    tells_of_losses(&result);
}

#[test]
fn a_state_that_is_damaged_on_the_way_is_fetched_again() {
    let backend = large_states().workers(2).build().unwrap();
    let reserved = Reserved::new();
    let listening = reserved.address();
    let proxy = Proxy::lying(listening, 2_000_000);
    let advertised = proxy.address().to_string();
    let _workers = [
        worker(backend.address(), |options| options),
        worker(backend.address(), |options| {
            options.listen(listening.to_string()).advertise(advertised)
        }),
    ];
    let result = run(backend, |_| ());
    assert!(proxy.has_lied());
    assert_eq!((result.summary().lost_workers, result.summary().retried_units), (0, 0));
    let summary = result.summary().to_string();
    assert!(summary.contains("was fetched again") && summary.contains("damaged"), "{summary}");
}

#[test]
fn over_a_network_with_100_ms_of_delay_each_way() {
    let backend = driver().workers(2).build().unwrap();
    let delay = Duration::from_millis(100);
    let proxy = Proxy::slow(backend.address(), delay);
    let reserved = Reserved::new();
    let listening = reserved.address();
    let peer = Proxy::slow(listening, delay);
    let advertised = peer.address().to_string();
    let _workers = [
        worker(backend.address(), |options| options),
        worker(proxy.address(), |options| {
            options.listen(listening.to_string()).advertise(advertised)
        }),
    ];
    let result = run(backend, |_| ());
    assert_eq!(result.summary().lost_workers, 0);
}

/// A worker that others reach through a network of `peers`, and that reaches the driver through one
/// of `control`.
fn worker_behind(
    driver: SocketAddr,
    control: impl FnOnce(SocketAddr) -> Proxy,
    peers: impl FnOnce(SocketAddr) -> Proxy,
) -> (Worker, Proxy, Reserved) {
    let reserved = Reserved::new();
    let listening = reserved.address();
    let (control, peers) = (control(driver), peers(listening));
    let advertised = peers.address().to_string();
    let started = worker(control.address(), |options| {
        options.listen(listening.to_string()).advertise(advertised)
    });
    (started, peers, reserved)
}

#[test]
fn over_a_network_that_loses_one_in_twenty_packets() {
    let backend = large_states().workers(2).build().unwrap();
    let lossy = |target| Proxy::lossy(target, 20);
    let _workers = (
        worker(backend.address(), |options| options),
        worker_behind(backend.address(), lossy, lossy),
    );
    let result = run(backend, |_| ());
    let summary = result.summary();
    assert_eq!((summary.lost_workers, summary.retried_units, summary.repeated_units), (0, 0, 0));
}

#[test]
fn connections_that_break_in_the_middle_of_a_state_cost_no_unit() {
    let backend = large_states().workers(2).build().unwrap();
    let (behind, peers, _reserved) = worker_behind(backend.address(), Proxy::to, |target| {
        // Each State has 3 MB.
        Proxy::breaking(target, 3, 1_000_000)
    });
    let _workers = (worker(backend.address(), |options| options), behind);
    let result = run(backend, |_| ());
    assert_eq!(peers.still_to_break(), 0);
    let summary = result.summary();
    assert_eq!((summary.lost_workers, summary.retried_units), (0, 0));
}

#[test]
fn a_slow_worker_holds_up_no_trial_but_the_one_that_it_trains() {
    const OTHERS: u32 = 3;
    let backend = driver().workers(2).replicas(2).build().unwrap();
    let address = backend.address();
    // Its first unit takes until all other trials have done their first epoch, so that nothing goes on
    // if any of them waits for it.
    let gate = Gate::default();
    gate.close();
    let _workers =
        [worker(address, |options| options), Worker::with(gate.registry(), options(address))];
    let mut units = 0;
    run(backend, move |event| {
        units += u32::from(matches!(event, Event::UnitCompleted { .. }));
        if units == OTHERS * (TRAIN + VALIDATION) {
            gate.open();
        }
    });
}

#[test]
fn a_worker_that_comes_before_its_driver_waits_for_it() {
    let reserved = Reserved::new();
    let address = reserved.address();
    let early = worker(address, |options| options);
    let backend = driver().listen(address.to_string()).workers(1).build().unwrap();
    run(backend, |_| ());
    early.end().unwrap();
}

#[test]
fn states_of_a_worker_that_refuses_connections_are_made_again_where_the_partitions_are_too() {
    let backend = driver().workers(1).replicas(2).build().unwrap();
    let address = backend.address();
    let reserved = Reserved::new();
    let nowhere = reserved.address().to_string();
    let gate = Gate::default();
    let _first = Worker::with(gate.registry(), options(address).advertise(&nowhere));
    // The other is the second in every list of workers, so that nothing is made again there by luck.
    let (begun, begins) = channel();
    let _second = thread::spawn(move || {
        begins.recv().unwrap();
        worker(address, |options| options)
    });
    let mut trials = BTreeSet::new();
    let result = run(backend, move |event| match event {
        Event::UnitCompleted { unit, .. } if trials.len() < 2 => {
            trials.insert(unit.trial);
            // The first is in one of the two at most, and the second has to go on with the other.
            if trials.len() == 2 {
                gate.close();
                begun.send(()).unwrap();
            }
        }
        Event::UnitRepeated { .. } => gate.open(),
        _ => {}
    });
    assert!(result.summary().repeated_units >= 1, "{}", result.summary());
    let summary = result.summary().to_string();
    for part in [&nowhere, "refused", "repeated"] {
        assert!(summary.contains(part), "no `{part}` in\n{summary}");
    }
}

#[test]
fn a_worker_that_nobody_can_reach_fails_trials_with_the_reason_and_nothing_hangs() {
    let backend = driver().workers(2).build().unwrap();
    let reserved = Reserved::new();
    let nowhere = reserved.address().to_string();
    let _workers = [
        worker(backend.address(), |options| options),
        worker(backend.address(), |options| options.advertise(&nowhere)),
    ];
    let result = experiment(rates(2)).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(result.summary().failed, 2);
    let error = result.best().unwrap_err().to_string();
    assert!(error.contains(&nowhere) && error.contains("refused"), "{error}");
}
