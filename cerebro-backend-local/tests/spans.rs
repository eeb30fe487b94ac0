//! The spans that an experiment has. A program has one subscriber, so this file has one test.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::{MemoryDataset, MemoryPartition, Partition};
use cerebro_core::experiment::Experiment;
use cerebro_core::search::Random;
use cerebro_core::{
    Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed, Slot, Space, Split,
    State, Statistic,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

type Named = (&'static str, BTreeMap<&'static str, String>);

/// Keeps the name and the fields of every span.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Named>>>);

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cerebro_core")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(BTreeMap::new());
        span.record(&mut fields);
        let mut spans = self.0.lock().unwrap();
        spans.push((span.metadata().name(), fields.0));
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Nothing;

impl Model for Nothing {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        Ok(())
    }

    fn restore(&mut self, _: &State) -> Result<(), ModelError> {
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(vec![0].into())
    }

    fn train(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        Ok(Metrics::new())
    }

    fn evaluate(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        let mut metrics = Metrics::new();
        metrics.record("loss", Statistic::mean(1.0, 1));
        Ok(metrics)
    }
}

fn partition(id: u32) -> MemoryPartition {
    let x = ndarray::Array2::<f32>::zeros((4, 1)).into_dyn();
    MemoryPartition::new(PartitionId(id), [("x", x.into())]).unwrap()
}

#[test]
fn an_experiment_has_spans_of_the_driver_the_scheduler_and_every_unit() {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    let parts = [(Split::Train, 0), (Split::Train, 1), (Split::Validation, 2)];
    let parts = parts.map(|(split, id)| (split, partition(id)));
    let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
    Experiment::builder()
        .name("traced")
        .dataset(MemoryDataset::new(parts).unwrap())
        .model(|_: &Config, _: &Slot| Ok(Box::new(Nothing) as Box<dyn Model>))
        .search(Random::new(&space, 2, Seed(1)).unwrap())
        .objective(Objective::minimize("loss"))
        .epochs(2)
        .build()
        .unwrap()
        .run_blocking(Arc::new(LocalBackend::builder().workers(2).build().unwrap()))
        .unwrap();

    let spans = spans.0.lock().unwrap();
    let named = |name: &'static str| spans.iter().filter(move |(found, _)| *found == name);
    assert_eq!(
        named("experiment").map(|(_, f)| f["name"].as_str()).collect::<Vec<_>>(),
        ["\"traced\""]
    );
    assert!(named("schedule").count() > 0);
    // 2 trials, 2 epochs, 2 training partitions and one for validation.
    for name in ["unit", "execute"] {
        let mut units: Vec<String> = named(name)
            .map(|(_, f)| {
                format!("{} {} {} {}", f["trial"], f["epoch"], f["split"], f["partition"])
            })
            .collect();
        units.sort();
        units.dedup();
        assert_eq!(units.len(), 12, "{name}: {units:?}");
        assert!(units.contains(&"trial-1 1 validation partition-2".to_owned()), "{units:?}");
    }
    assert!(named("unit").all(|(_, fields)| fields["worker"].starts_with("worker-")));
}
