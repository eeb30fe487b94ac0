//! [`Renewal`]: the variables of a trial while a unit changes them.

use std::iter;
use std::mem;

use cerebro_core::Device;

use super::session::GraphSession;
use super::{Buffer, StepError};
use crate::graph::write_in_place;
use crate::onnx;
use crate::program::Program;
use crate::state::TrainingState;
use crate::training::Variable;

/// The variables of a trial while a unit changes them.
///
/// The State that the unit starts from is shared and stays as it is: the first update reads it and
/// writes what is the unit's own. Later ones read that and write most of it where it is; what a
/// graph may not write in place takes turns with spare memory.
#[derive(Debug)]
pub(crate) struct Renewal<'s> {
    start: &'s TrainingState,
    /// The latest values of the live variables, once there was an update.
    own: Vec<Buffer>,
    is_begun: bool,
    spare: Spare,
}

/// Memory for values of live variables that cannot be written in place: on a GPU for all of them, on the
/// host for those that needed it.
pub(super) type Spare = Vec<Option<Buffer>>;

impl<'s> Renewal<'s> {
    /// Those of a unit that starts from `start`; `own` and `spare` are buffers with any content.
    pub(super) fn new(start: &'s TrainingState, own: Vec<Buffer>, mut spare: Spare) -> Self {
        spare.resize_with(own.len(), || None);
        Self { start, own, is_begun: false, spare }
    }

    /// Every variable with its latest value, in the order of the variables.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Variable, &Buffer)> {
        self.start.entries_with(if self.is_begun { &self.own } else { self.start.live() })
    }

    /// Runs a graph that reads `inputs` and the variables, and writes `outputs` and new values of the
    /// variables, in the order of `plan`.
    pub(super) fn run(
        &mut self,
        session: &mut GraphSession,
        plan: &Plan,
        inputs: Vec<&Buffer>,
        outputs: Vec<&mut Buffer>,
    ) -> Result<(), StepError> {
        let (mut inputs, mut outputs) = (inputs, outputs);
        let Self { start, own, is_begun, spare } = self;
        inputs.extend(start.frozen().iter().filter(|_| plan.reads_frozen));
        if !*is_begun {
            inputs.extend(plan.ordered(start.live()));
            outputs.extend(plan.ordered(own));
            session.run(&inputs, &mut outputs)?;
            *is_begun = true;
            return Ok(());
        }
        let (turning, mut renewed) = plan.split(own.iter_mut());
        let mut others = plan.split(spare.iter_mut()).0;
        for (buffer, other) in turning.iter().zip(&mut others) {
            if other.is_none() {
                **other = Some(Buffer::zeros(buffer.data_type(), &buffer.dims())?);
            }
        }
        inputs.extend(turning.iter().map(|buffer| &**buffer));
        outputs.extend(others.iter_mut().filter_map(|other| other.as_mut()));
        session.run_in_place(&inputs, &mut outputs, &mut renewed)?;
        for (buffer, other) in turning.into_iter().zip(others) {
            mem::swap(buffer, other.as_mut().expect("it was allocated above"));
        }
        Ok(())
    }

    /// The live variables and the memory of their latest values, for those that no graph writes.
    pub(super) fn own_mut(&mut self) -> impl Iterator<Item = (&Variable, &mut Buffer)> {
        self.start.live_variables().zip(&mut self.own)
    }

    /// The latest values of the live variables, and the spare memory.
    pub(super) fn finish(self) -> (Vec<Buffer>, Spare) {
        (self.own, self.spare)
    }
}

/// How a graph reads the variables of a program and writes their new values.
#[derive(Debug)]
pub(super) struct Plan {
    reads_frozen: bool,
    /// Where the new value of each live variable goes; `None` for those that the graph does not have.
    places: Vec<Option<Place>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Into spare memory, with which the old value takes turns.
    Turn,
    /// Over the old value.
    InPlace,
}

impl Plan {
    /// How `model` does, which has the variables of `program` that `has` names and runs on `device`. It is
    /// changed so that it may write more of them in place.
    pub(super) fn new(
        model: &mut onnx::Model,
        device: Device,
        program: &Program,
        has: impl Fn(&Variable) -> bool,
    ) -> Self {
        let (live, frozen): (Vec<_>, Vec<_>) =
            program.variables().iter().partition(|variable| variable.output.is_some());
        let renewed = live.iter().filter(|variable| has(variable));
        let renewed: Vec<_> =
            renewed.filter_map(|of| Some((of.input.as_str(), of.output.as_deref()?))).collect();
        // Copies to and from a GPU run beside what reads them.
        let in_place = match device {
            Device::Cpu => write_in_place(&mut model.graph, &renewed),
            _ => vec![false; renewed.len()],
        };
        let mut in_place = in_place.into_iter();
        let place = |variable| {
            let is_in_place = has(variable).then(|| in_place.next())??;
            Some(if is_in_place { Place::InPlace } else { Place::Turn })
        };
        let places = live.into_iter().map(place).collect();
        Self { reads_frozen: frozen.into_iter().any(has), places }
    }

    /// The names of the inputs that are variables of `program`, in the order in which they are fed.
    pub(super) fn inputs<'p>(&self, program: &'p Program) -> impl Iterator<Item = &'p str> {
        let frozen = program.variables().iter().filter(|variable| variable.output.is_none());
        let frozen = frozen.filter(|_| self.reads_frozen);
        frozen.chain(self.ordered(program.live_variables())).map(|variable| variable.input.as_str())
    }

    /// The names of the outputs that are variables of `program`, in the order in which they are written.
    pub(super) fn outputs<'p>(&self, program: &'p Program) -> impl Iterator<Item = &'p str> {
        self.ordered(program.live_variables()).filter_map(|variable| variable.output.as_deref())
    }

    /// What `of`, with an item for each live variable, has for those that take turns, then for
    /// those that are written in place.
    fn ordered<T>(&self, of: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        let (turning, in_place) = self.split(of);
        turning.into_iter().chain(in_place)
    }

    /// The same apart.
    fn split<T>(&self, of: impl IntoIterator<Item = T>) -> (Vec<T>, Vec<T>) {
        let (mut turning, mut in_place) = (Vec::new(), Vec::new());
        for (item, place) in iter::zip(of, &self.places) {
            match place {
                Some(Place::Turn) => turning.push(item),
                Some(Place::InPlace) => in_place.push(item),
                None => {}
            }
        }
        (turning, in_place)
    }
}
