//! [`execute`]: what a worker does with a unit, whatever backend it belongs to.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::backend::{UnitError, UnitOrder};
use crate::data::Partition;
use crate::id::{Split, Unit};
use crate::metric::Metrics;
use crate::model::{Model, ModelBuilder, ModelError, Pass, Slot};
use crate::state::State;

/// What came out of a unit.
#[derive(Debug)]
pub struct Executed {
    /// Metrics over the unit's rows.
    pub metrics: Metrics,
    /// The State that a training unit made; a validation unit makes none.
    pub state: Option<State>,
    /// The time that the model spent in `train` or `evaluate`.
    pub computed: Duration,
}

/// Runs the unit of `order` in `slot`: builds its model, gives it the State `start` (none: the one
/// that the trial's seed determines), and lets it pass over `partition`.
///
/// `progress` is told of the rows of each batch that is done. It blocks until the unit ends, so
/// backends call it off the async threads. A panic in the model is this unit's error and nothing
/// else's: whatever was left half done is dropped, and `start` cannot change.
pub fn execute(
    builder: &dyn ModelBuilder,
    slot: &Slot,
    order: &UnitOrder,
    start: Option<&State>,
    partition: &dyn Partition,
    progress: &dyn Fn(usize),
) -> Result<Executed, UnitError> {
    let attempt = || pass(builder, slot, order, start, partition, progress);
    let executed = catch_unwind(AssertUnwindSafe(attempt))
        .map_err(|panic| UnitError::Panicked { message: message(&*panic) })??;
    Ok(executed)
}

fn pass(
    builder: &dyn ModelBuilder,
    slot: &Slot,
    order: &UnitOrder,
    start: Option<&State>,
    partition: &dyn Partition,
    progress: &dyn Fn(usize),
) -> Result<Executed, ModelError> {
    let Unit { trial, epoch, split, partition: id } = order.unit;
    let slot_number = slot.number;
    let span = tracing::info_span!("execute", %trial, epoch, %split, partition = %id, slot_number);
    let _within = span.entered();
    let mut model: Box<dyn Model> = builder.build(&order.config, slot)?;
    match start {
        Some(state) => model.restore(state)?,
        None => model.initialize(order.seed)?,
    }
    let pass = Pass::new(order.unit, order.seed, &order.cancellation, progress);
    let begun = Instant::now();
    let metrics = match order.unit.split {
        Split::Train => model.train(partition, &pass)?,
        Split::Validation => model.evaluate(partition, &pass)?,
    };
    let computed = begun.elapsed();
    let state = match order.unit.split {
        Split::Train => Some(model.state()?),
        Split::Validation => None,
    };
    Ok(Executed { metrics, state, computed })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not a text".to_owned())
}
