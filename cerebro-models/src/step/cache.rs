//! [`SlotCache`]: the compiled graphs of a slot, shared by the models that run there in turn.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use cerebro_core::{Device, ModelError, Slot};

use super::renewal::Spare;
use super::{Buffer, Memory, Renewal, StepError, Stepper, Task, Updater};
use crate::graph::Dialect;
use crate::kernels;
use crate::program::{Program, ProgramId};
use crate::runtime;
use crate::state::TrainingState;
use crate::training::InputShapes;

/// Which graph of which program, for which shapes.
type StepperKey = (ProgramId, Task, InputShapes);

/// The caches of all slots of a process.
#[derive(Debug, Default)]
pub(crate) struct SlotCaches(Mutex<HashMap<Slot, Arc<Mutex<SlotCache>>>>);

impl SlotCaches {
    /// The cache of `slot`.
    pub(crate) fn of(&self, slot: &Slot) -> Arc<Mutex<SlotCache>> {
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            caches.entry(*slot).or_insert_with(|| Arc::new(Mutex::new(SlotCache::new(*slot)))),
        )
    }
}

/// The compiled graphs that a slot keeps. A small one takes a quarter of a megabyte; a search over
/// more architectures than these compiles some again, which takes milliseconds.
const STEPPERS: usize = 256;

/// What the models of one slot share: compiled graphs, and memory for the next weights.
#[derive(Debug)]
pub(crate) struct SlotCache {
    slot: Slot,
    /// Where variables live, from the first use on.
    memory: Option<Memory>,
    steppers: HashMap<StepperKey, (Stepper, u64)>,
    /// Counts the uses of steppers: the one with the lowest count was not used for longest.
    uses: u64,
    /// Memory for the live variables of a program.
    free: HashMap<ProgramId, Free>,
    /// What updates by accumulated gradients, for the programs that need it.
    updaters: HashMap<ProgramId, Updater>,
}

/// Buffers of a program that no unit has now.
#[derive(Debug, Default)]
struct Free {
    own: Option<Vec<Buffer>>,
    spare: Spare,
}

impl SlotCache {
    pub(crate) fn new(slot: Slot) -> Self {
        Self {
            slot,
            memory: None,
            steppers: HashMap::new(),
            uses: 0,
            free: HashMap::new(),
            updaters: HashMap::new(),
        }
    }

    /// Where the variables of this slot's trials live: an error if its device cannot be used.
    pub(crate) fn memory(&mut self) -> Result<&Memory, StepError> {
        match &mut self.memory {
            Some(memory) => Ok(memory),
            unknown => Ok(unknown.insert(Memory::of(&self.slot)?)),
        }
    }

    /// The stepper of `program` for `task` and `shapes`, compiled at the first call.
    pub(crate) fn stepper(
        &mut self,
        program: &Program,
        task: Task,
        shapes: &InputShapes,
    ) -> Result<&mut Stepper, ModelError> {
        self.uses += 1;
        let key = (program.id(), task, shapes.clone());
        if !self.steppers.contains_key(&key) {
            self.make_room();
        }
        match self.steppers.entry(key) {
            Entry::Occupied(entry) => {
                let (stepper, used) = entry.into_mut();
                *used = self.uses;
                Ok(stepper)
            }
            Entry::Vacant(entry) => {
                let runtime = runtime::load()?;
                let dialect = dialect(&self.slot);
                let stepper = Stepper::new(runtime, &self.slot, program, task, dialect, shapes)?;
                Ok(&mut entry.insert((stepper, self.uses)).0)
            }
        }
    }

    /// Drops the stepper that was not used for longest if there are as many as may be, and the
    /// buffers of programs without steppers.
    fn make_room(&mut self) {
        if self.steppers.len() < STEPPERS {
            return;
        }
        let oldest = self.steppers.iter().min_by_key(|(_, (_, used))| *used);
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.steppers.remove(&oldest);
        }
        let steppers = &self.steppers;
        let is_used = |program: &ProgramId| steppers.keys().any(|(other, ..)| other == program);
        self.free.retain(|program, _| is_used(program));
        self.updaters.retain(|program, _| is_used(program));
    }

    /// What updates the weights of `program` by accumulated gradients, compiled at the first call;
    /// `shapes` are those of any batch. To be given back.
    pub(crate) fn take_updater(
        &mut self,
        program: &Program,
        shapes: &InputShapes,
    ) -> Result<Updater, ModelError> {
        if let Some(updater) = self.updaters.remove(&program.id()) {
            return Ok(updater);
        }
        let (slot, dialect) = (self.slot, dialect(&self.slot));
        Updater::new(runtime::load()?, &slot, self.memory()?, program, dialect, shapes)
    }

    /// Takes back an updater.
    pub(crate) fn keep_updater(&mut self, program: &Program, updater: Updater) {
        self.updaters.insert(program.id(), updater);
    }

    /// The variables of a unit of `program` that starts from `start`. To be given back.
    pub(crate) fn take_renewal<'s>(
        &mut self,
        program: &Program,
        start: &'s TrainingState,
    ) -> Result<Renewal<'s>, ModelError> {
        let Free { own, mut spare } = self.free.remove(&program.id()).unwrap_or_default();
        let memory = self.memory()?;
        let buffers = || {
            let live = program.live_variables();
            let buffers = live.map(|of| Buffer::within(memory, of.data_type, &of.dims));
            buffers.collect::<Result<Vec<_>, _>>()
        };
        let own = own.map_or_else(buffers, Ok)?;
        // Nothing is written in place there.
        if memory.device() != Device::Cpu && spare.is_empty() {
            spare = buffers()?.into_iter().map(Some).collect();
        }
        Ok(Renewal::new(start, own, spare))
    }

    /// Takes back the spare memory of a unit that is done: gives the latest values of its live variables.
    pub(crate) fn keep_renewal(&mut self, program: &Program, renewal: Renewal<'_>) -> Vec<Buffer> {
        let (own, spare) = renewal.finish();
        self.free.entry(program.id()).or_default().spare = spare;
        own
    }

    /// Takes over the memory of live variables that nobody needs.
    pub(crate) fn keep_buffers(&mut self, program: &Program, buffers: Vec<Buffer>) {
        self.free.entry(program.id()).or_default().own = Some(buffers);
    }
}

/// The operators that graphs of a slot may use.
fn dialect(slot: &Slot) -> Dialect {
    match slot.device {
        Device::Cpu if kernels::products_pay() => Dialect::FusedProducts,
        Device::Cpu => Dialect::Fused,
        _ => Dialect::Standard,
    }
}
