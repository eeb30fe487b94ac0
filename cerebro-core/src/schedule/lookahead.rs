//! Looking ahead: the rest of the run is played through before a choice is made.
//!
//! A list scheduler is nearly optimal while much work is left. Its losses come at the end, and where
//! trials are about as many as workers: there it pays to keep a worker waiting for a trial that will
//! be free in a moment, or to take trials in another order. So the rest of the run is simulated, on a
//! copy of the board, under a handful of *plans*, and the best plan makes the next choice (a
//! rollout algorithm: Bertsekas, Tsitsiklis, Wu 1997, "Rollout algorithms for combinatorial
//! optimization", Journal of Heuristics 3). A plan is a window, within which those that end soon are
//! counted as free, unless they are late by as much, and biases of the priorities. The best plan so far
//! is varied, and goes on to the next choice: a local search that takes the whole run.
//!
//! Where jobs begin an epoch together, a [`Rotation`] of them is one more plan, for the whole run. It ends
//! where a unit takes longer than it should by the time of another one.
//!
//! Time is spent in proportion to what the units themselves take, and only on the last few thousand
//! units, so that the scheduler never costs more than a small share of one core.

use super::board::Board;
use super::dispatch::{Choice, Dispatcher, Soon};
use super::job::{Done, NONE};
use super::rotation::Rotation;

/// The most units that are played through.
const HORIZON: u64 = 2048;

/// The most units for which a rotation is compared with the greedy rule before the run begins.
const ROTATION_HORIZON: u64 = 32_768;

/// Pairs that the dispatcher looks at in the time that one simulated unit takes otherwise.
const LOOKS_PER_STEP: f64 = 64.0;

/// Simulated units that a measured second pays for: at about a quarter of a microsecond each, half a
/// per cent of one core.
const STEPS_PER_SECOND: f64 = 20_000.0;

/// Simulated units that one measured unit pays for at most; more where there are fewer units than `SHORT`
/// in all, since a short run is played through in no time.
const STEPS_PER_UNIT: f64 = 1000.0;
const SHORT: f64 = 2000.0;
const MOST_TIMES: f64 = 16.0;

/// What so many units pay for is saved up at most.
const SAVED_UNITS: f64 = 50.0;

/// The first unit pays for as many as this, since the first choices bind the most.
const ADVANCE: f64 = 25.0;

/// A schedule this close to its lower bound is not worth improving.
const GOOD_ENOUGH: f64 = 1.001;

/// Variations of the best plan that are tried for one choice.
const VARIATIONS: usize = 1000;

/// A good plan is not questioned before this part of the units that were left has started.
const TRUST: u64 = 16;

/// Windows to try, as parts of a mean unit.
const WINDOWS: [f64; 6] = [0.0, 0.05, 0.1, 0.25, 0.5, 1.0];

/// How far a variation changes biases.
const SPREADS: [f64; 4] = [0.05, 0.1, 0.3, 1.0];

/// A running unit on a copy of the board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// Seconds from now.
    pub(super) ends: f64,
    /// Seconds since it should have ended.
    pub(super) late: f64,
    /// Seconds that it takes longer than it should.
    pub(super) overrun: f64,
    /// `NONE` where the job has no other work: only the slot counts.
    pub(super) job: u32,
    pub(super) partition: u32,
    pub(super) worker: u32,
}

/// A way to go on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    /// Those that end within so many seconds are counted as free.
    window: f64,
    /// What the priorities of jobs, by their original numbers, and of workers are multiplied by; 1
    /// where there is nothing.
    jobs: Vec<f64>,
    workers: Vec<f64>,
}

impl Plan {
    fn is_greedy(&self) -> bool {
        self.window == 0.0 && !self.has_biases()
    }

    fn has_biases(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// This plan with another window or other biases for some jobs and workers, where a unit takes so
    /// many seconds.
    fn varied(&self, draw: u64, unit: f64, numbers: &[u32], workers: usize) -> Self {
        let mut plan = self.clone();
        let mut word = draw;
        let mut next = |below: usize| {
            word = mix(word);
            (word >> 11) as usize % below
        };
        if next(4) == 0 {
            plan.window = WINDOWS[next(WINDOWS.len())] * unit;
        }
        let jobs = numbers.last().map_or(0, |&last| last as usize + 1);
        plan.jobs.resize(jobs.max(plan.jobs.len()), 1.0);
        plan.workers.resize(workers, 1.0);
        let (spread, one_in) = (SPREADS[next(SPREADS.len())], 1 + next(8));
        let mut vary = |bias: &mut f64| {
            if next(one_in) == 0 {
                *bias *= 1.0 + spread * (next(1 << 20) as f64 / f64::from(1 << 20) - 0.5);
            }
        };
        for &job in numbers {
            vary(&mut plan.jobs[job as usize]);
        }
        plan.workers.iter_mut().for_each(vary);
        plan
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): one well-mixed word for another.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Plans and pays for the looks ahead.
#[derive(Debug)]
pub(super) struct Lookahead {
    plan: Plan,
    tried: u64,
    steps: f64,
    /// Units that paid.
    done: u64,
    /// The plan is good until fewer units than these are left.
    trusted_until: u64,
    unit_seconds: f64,
    /// Goes before the plan, while there is one.
    rotation: Option<Rotation>,
    /// Whether the rotation is not questioned yet: costs are known, or guessed, but not which workers are
    /// slow, so what another plan seems to gain may be what it takes them for.
    rotation_is_trusted: bool,
    copy: Option<Board>,
    running: Vec<Running>,
    soon: Vec<Soon>,
    choices: Vec<Choice>,
}

impl Default for Lookahead {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            tried: 0,
            steps: 0.0,
            done: 0,
            trusted_until: u64::MAX,
            unit_seconds: 0.0,
            rotation: None,
            rotation_is_trusted: false,
            copy: None,
            running: Vec::new(),
            soon: Vec::new(),
            choices: Vec::new(),
        }
    }
}

impl Lookahead {
    /// Takes in that a unit took this long and how many have not begun, which pays for looks ahead.
    pub(super) fn earn(&mut self, seconds: f64, left: u64) {
        self.done += 1;
        let units = (self.done + left) as f64;
        let most = STEPS_PER_UNIT * (SHORT / units).clamp(1.0, MOST_TIMES);
        let earned = (seconds * STEPS_PER_SECOND).min(most);
        let (weight, earned) =
            if self.unit_seconds == 0.0 { (1.0, earned * ADVANCE) } else { (0.05, earned) };
        self.unit_seconds += (seconds - self.unit_seconds) * weight;
        self.steps = (self.steps + earned).min(SAVED_UNITS * most);
    }

    /// Whether there is a choice to be made that the greedy one may not be the best for.
    pub(super) fn is_wanted(&self, board: &Board) -> bool {
        let can_choose =
            board.units_left > 0 && !board.free().is_empty() && !board.ready().is_empty();
        can_choose
            && (self.rotation.is_some()
                || self.unit_seconds > 0.0
                    && board.units_left <= HORIZON
                    && (!self.plan.is_greedy() || self.can_question_plan(board)))
    }

    fn can_question_plan(&self, board: &Board) -> bool {
        self.steps >= board.units_left as f64 && !self.trusts_plan(board)
    }

    fn trusts_plan(&self, board: &Board) -> bool {
        let left = board.units_left;
        (self.trusted_until..=self.trusted_until.saturating_mul(2)).contains(&left)
    }

    /// Whether a better plan is looked for at the next choice.
    pub(super) fn questions(&self, board: &Board) -> bool {
        board.units_left <= HORIZON && self.can_question_plan(board)
    }

    /// Takes in what is known of the units that run.
    pub(super) fn heed(&mut self, running: &[Running]) {
        if self.unit_seconds > 0.0 && running.iter().any(|unit| unit.overrun > self.unit_seconds) {
            // Nothing that was played through has such a unit in it.
            self.rotation = None;
            self.trusted_until = u64::MAX;
        }
    }

    /// The units to start on `board`, by the best plan found. `running` are the units that run, and
    /// `bound` the seconds that no schedule can beat, if a better plan is to be looked for.
    pub(super) fn choose(
        &mut self,
        dispatcher: &mut Dispatcher,
        board: &Board,
        running: &[Running],
        bound: Option<f64>,
        choices: &mut Vec<Choice>,
    ) {
        if self.rotation.is_some() {
            if let Some(bound) = bound.filter(|_| !self.rotation_is_trusted) {
                self.question_rotation(dispatcher, board, running, bound);
            }
            if self.rotation.is_some() {
                self.rotate(board, choices);
                if !choices.is_empty() || !running.is_empty() {
                    return;
                }
                self.rotation = None;
            }
        }
        let (projected, numbers) = board.project();
        let running = project(running, &numbers);

        if let Some(bound) = bound {
            self.find_plan(dispatcher, &projected, &numbers, &running, bound, f64::INFINITY);
        }

        choices.clear();
        let mut copy = projected;
        apply(&mut copy, &self.plan, &numbers);
        self.list_soon(&copy, &running, 0.0, self.plan.window);
        loop {
            dispatcher.choose(&mut copy, &self.soon, &mut self.choices);
            for choice in &self.choices {
                copy.start(choice.job as usize, choice.partition as usize, choice.worker as usize);
                choices.push(Choice { job: numbers[choice.job as usize], ..*choice });
            }
            if self.choices.is_empty() || !self.soon.is_empty() {
                break;
            }
        }
    }

    /// For how many seconds longer than it should take a unit is waited for, if any is.
    pub(super) fn patience(&self) -> Option<f64> {
        let patience = if self.rotation.is_some() { self.unit_seconds } else { self.plan.window };
        Some(patience).filter(|patience| *patience > 0.0)
    }

    /// Takes up a rotation where all jobs begin an epoch, if it ends no later than the greedy rule.
    /// `costs_are_known` says whether the jobs' rates are more than assumed.
    pub(super) fn consider_rotation(
        &mut self,
        dispatcher: &mut Dispatcher,
        board: &Board,
        bound: f64,
        costs_are_known: impl Fn(usize) -> bool,
    ) {
        self.rotation = None;
        if board.units_left > ROTATION_HORIZON {
            return;
        }
        let Some(rotation) = Rotation::new(board) else {
            return;
        };
        if rotation.keeps_waiting(board) {
            return;
        }
        self.rotation_is_trusted = rotation.jobs().all(costs_are_known);
        if !rotation.is_of_single_jobs() && !self.rotation_is_trusted {
            return;
        }
        self.rotation = Some(rotation);
        if !self.rotation_is_best(dispatcher, board, &[], bound) {
            self.rotation = None;
        }
    }

    /// Takes in that speeds are known better.
    pub(super) fn speeds_changed(&mut self, board: &Board) {
        self.trusted_until = u64::MAX;
        self.rotation.take_if(|rotation| rotation.keeps_waiting(board));
    }

    /// Takes in that a unit was measured; `is_measured` says which workers are known by now.
    pub(super) fn measured(&mut self, is_measured: impl Fn(usize) -> bool) {
        if self.rotation_is_trusted
            && self.rotation.as_ref().is_some_and(|rotation| rotation.workers().all(is_measured))
        {
            self.rotation_is_trusted = false;
        }
    }

    /// Ends a rotation, since what it was made for has changed.
    pub(super) fn end_rotation(&mut self) {
        self.rotation = None;
    }

    /// Takes in that a unit of a job was done.
    pub(super) fn completed(&mut self, job: usize) {
        if let Some(rotation) = &mut self.rotation {
            rotation.completed(job as u32);
        }
    }

    /// Takes in that units which had started are open again.
    pub(super) fn rewind_rotation(&mut self) {
        if let Some(rotation) = &mut self.rotation {
            rotation.rewind();
        }
    }

    /// Ends the rotation if there is a plan that ends earlier, by what is known of costs by now.
    fn question_rotation(
        &mut self,
        dispatcher: &mut Dispatcher,
        board: &Board,
        running: &[Running],
        bound: f64,
    ) {
        let Some(rotation) = &self.rotation else { return };
        let (board, numbers) = &board.project();
        let way = Way::Rotation(rotation.project(numbers));
        let running = &project(running, numbers);
        let rotated = self.play(dispatcher, board, way, running, f64::INFINITY);
        if rotated <= bound * GOOD_ENOUGH {
            self.trusted_until = board.units_left - board.units_left / TRUST;
        } else if self.find_plan(dispatcher, board, numbers, running, bound, rotated) < rotated {
            self.rotation = None;
        }
    }

    /// Whether the greedy rule ends no earlier than the rotation.
    fn rotation_is_best(
        &mut self,
        dispatcher: &mut Dispatcher,
        board: &Board,
        running: &[Running],
        bound: f64,
    ) -> bool {
        let Some(rotation) = &self.rotation else {
            return false;
        };
        let (board, numbers) = &board.project();
        let way = Way::Rotation(rotation.project(numbers));
        let running = &project(running, numbers);
        let best = self.play(dispatcher, board, way, running, f64::INFINITY);
        let left = board.units_left;
        self.trusted_until = left - left / TRUST;
        best <= bound * GOOD_ENOUGH || {
            let greedy = Plan::default();
            let greedy = Way::Plan(&greedy, &[]);
            self.play(dispatcher, board, greedy, running, best) >= best * (1.0 - 1e-9)
        }
    }

    fn rotate(&mut self, board: &Board, choices: &mut Vec<Choice>) {
        choices.clear();
        if let Some(rotation) = &mut self.rotation {
            rotation.choose(board, choices);
        }
    }

    /// Plays plans through until one is good enough or the steps are spent, and keeps the best of those
    /// that end before `rival`. Answers with the seconds that it takes, or `rival`.
    fn find_plan(
        &mut self,
        dispatcher: &mut Dispatcher,
        board: &Board,
        numbers: &[u32],
        running: &[Running],
        bound: f64,
        rival: f64,
    ) -> f64 {
        let left = board.units_left;
        let good = bound * GOOD_ENOUGH;
        let last = std::mem::take(&mut self.plan);
        let way = Way::Plan(&last, numbers);
        let mut best = self.play(dispatcher, board, way, running, rival).min(rival);
        let mut best_plan = last;
        // A plan is followed as it was played, also when units take longer later.
        let unit = self.unit_seconds;
        for index in 0..WINDOWS.len() + VARIATIONS {
            if best <= good || self.steps < left as f64 {
                break;
            }
            let plan = if let Some(window) = WINDOWS.get(index) {
                Plan { window: window * unit, ..Plan::default() }
            } else {
                self.tried += 1;
                best_plan.varied(self.tried, unit, numbers, board.seats.len())
            };
            let way = Way::Plan(&plan, numbers);
            let makespan = self.play(dispatcher, board, way, running, best);
            // A variation that is as good may lead on to a better one.
            let is_as_good = makespan <= best && index >= WINDOWS.len();
            if makespan < best * (1.0 - 1e-9) || is_as_good {
                best = makespan;
                best_plan = plan;
            }
        }
        self.plan = best_plan;
        self.trusted_until = if best <= good { left - left / TRUST } else { u64::MAX };
        best
    }

    /// The seconds until all is done in a way, or anything above `limit` if that is exceeded.
    fn play(
        &mut self,
        dispatcher: &mut Dispatcher,
        from: &Board,
        mut way: Way<'_>,
        running: &[Running],
        limit: f64,
    ) -> f64 {
        let looks = dispatcher.looks;
        let mut board = self.copy.take().unwrap_or_else(|| from.clone());
        board.copy_from(from);
        if let Way::Plan(plan, numbers) = &way {
            apply(&mut board, plan, numbers);
        }
        self.running.clear();
        self.running.extend_from_slice(running);
        let mut now = 0.0;
        let mut makespan = running.iter().map(|unit| unit.ends).fold(0.0, f64::max);
        while board.units_left > 0 && makespan <= limit {
            if let Way::Plan(plan, _) = &way {
                let units = std::mem::take(&mut self.running);
                self.list_soon(&board, &units, now, plan.window);
                self.running = units;
            }
            loop {
                match &mut way {
                    Way::Plan(..) => {
                        dispatcher.choose(&mut board, &self.soon, &mut self.choices);
                    }
                    Way::Rotation(rotation) => rotation.choose(&board, &mut self.choices),
                }
                for choice in &self.choices {
                    let &Choice { job, partition, worker } = choice;
                    let took = board.estimate(job as usize, partition as usize, worker as usize);
                    board.start(job as usize, partition as usize, worker as usize);
                    let (ends, late, overrun) = (now + took, 0.0, 0.0);
                    self.running.push(Running { ends, late, overrun, job, partition, worker });
                    // What is certain to exceed the limit need not be played to its end.
                    makespan = makespan.max(now + took + board.remaining(job as usize));
                    self.steps -= 1.0;
                }
                if self.choices.is_empty() || !self.soon.is_empty() {
                    break;
                }
            }
            let next = self.running.iter().map(|unit| unit.ends).fold(f64::INFINITY, f64::min);
            if next == f64::INFINITY {
                break;
            }
            now = next;
            let mut at = 0;
            while at < self.running.len() {
                if self.running[at].ends <= now {
                    let unit = self.running.swap_remove(at);
                    board.release(unit.worker as usize);
                    // Of a trial that was stopped, only the slot counts.
                    if unit.job != NONE {
                        let _: Done = board.complete(unit.job as usize, unit.partition as usize);
                    }
                    if let Way::Rotation(rotation) = &mut way {
                        rotation.completed(unit.job);
                    }
                } else {
                    at += 1;
                }
            }
        }
        if board.units_left > 0 && makespan <= limit && self.running.is_empty() {
            makespan = f64::INFINITY;
        }
        self.copy = Some(board);
        self.steps -= (dispatcher.looks - looks) as f64 / LOOKS_PER_STEP;
        makespan
    }

    fn list_soon(&mut self, board: &Board, running: &[Running], now: f64, window: f64) {
        self.soon.clear();
        if window == 0.0 || board.free().is_empty() || board.ready().is_empty() {
            return;
        }
        let ending = running.iter().filter(|unit| unit.ends + unit.late <= now + window);
        self.soon.extend(ending.map(|unit| Soon {
            wait: unit.ends - now,
            job: unit.job,
            worker: unit.worker,
        }));
    }
}

/// The same units on a [projected](Board::project) board, whose jobs had these numbers before.
fn project(running: &[Running], numbers: &[u32]) -> Vec<Running> {
    let new_number = |job: u32| numbers.binary_search(&job).map_or(NONE, |new| new as u32);
    running.iter().map(|unit| Running { job: new_number(unit.job), ..*unit }).collect()
}

/// How the rest of a run is played.
enum Way<'a> {
    /// By a plan, on a board whose jobs have these original numbers.
    Plan(&'a Plan, &'a [u32]),
    Rotation(Rotation),
}

fn apply(board: &mut Board, plan: &Plan, numbers: &[u32]) {
    if plan.has_biases() {
        let jobs = numbers.len();
        let bias = |biases: &[f64], at: usize| biases.get(at).copied().unwrap_or(1.0);
        board.set_biases(|node| match (node as usize).checked_sub(jobs) {
            None => bias(&plan.jobs, numbers[node as usize] as usize),
            Some(worker) => bias(&plan.workers, worker),
        });
    }
}
