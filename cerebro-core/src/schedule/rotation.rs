//! Bundles of jobs that go round the workers: for few jobs, nobody waits.
//!
//! Where every partition has one holder, the jobs are packed into as many bundles as there are
//! workers, of about the same time each. In every round, each worker has one bundle; then each bundle
//! goes to the next worker of the ring. A round takes as long as the longest bundle, so the whole takes
//! the longest trial's time if that trial is a bundle of its own, and hardly more than the busiest
//! worker's if the bundles are even: it is the Latin square of unequal jobs. The packing is by
//! longest processing time first (Graham 1969, "Bounds on multiprocessing timing anomalies", SIAM
//! Journal on Applied Mathematics 17(2)).
//!
//! A worker never takes a bundle before the one in front of it is through. So what runs is the
//! rotation in lock step, or something shorter: units start as soon as their turn has come.

use super::board::Board;
use super::dispatch::Choice;
use super::job::Phase;
use crate::id::Split;

/// The most jobs that are rotated; for more, the longest-remaining-first rule is as good.
const MOST_JOBS: usize = 512;

/// Workers whose times differ by no more than this factor are alike.
const ALIKE: f64 = 1.1;

/// A job, and how far it has come on its way round.
#[derive(Clone, Copy, Debug)]
struct Member {
    job: u32,
    bundle: u32,
    /// Later epochs when the rotation began.
    later_epochs: u32,
    /// Workers visited, over all laps: the round in which it next wants to take part.
    round: u32,
}

/// A rotation under way.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// The workers in the order of the ring, and the round that each is in.
    ring: Vec<u32>,
    round_of: Vec<u32>,
    /// Sorted by bundle, those of a bundle by descending time.
    members: Vec<Member>,
    /// Where each bundle's members begin, and the end of all.
    starts: Vec<usize>,
    /// The round in which all are through.
    last: u32,
    /// The jobs in ascending order, with their members.
    member_of: Vec<(u32, u32)>,
    /// Jobs of which a unit started or was done since the last choice.
    changed: Vec<u32>,
}

impl Rotation {
    /// A rotation of all jobs that have work, if each is at the start of an epoch and every training
    /// partition is on one worker of one slot.
    pub(super) fn new(board: &Board) -> Option<Self> {
        let layout = &board.layout;
        if board.working.len() > MOST_JOBS {
            return None;
        }
        let mut ring = Vec::new();
        for partition in layout.range(Split::Train) {
            let &[holder] = layout.holders(partition) else {
                return None;
            };
            ring.push(holder);
        }
        ring.sort_unstable();
        ring.dedup();
        if ring.len() < 2 || ring.iter().any(|&worker| board.seats[worker as usize].free != 1) {
            return None;
        }
        let is_fresh = |&number: &u32| {
            let job = &board.jobs[number as usize];
            job.phase == Phase::Training
                && job.running == 0
                && job.training_left as usize == layout.training()
                && job.weight == 1.0
        };
        let mut jobs = board.working.clone();
        if jobs.len() < 2 || !jobs.iter().all(is_fresh) {
            return None;
        }
        let rate = |job: u32| board.jobs[job as usize].training_rate;
        jobs.sort_by(|&a, &b| rate(b).total_cmp(&rate(a)).then(a.cmp(&b)));
        let mut loads = vec![0.0_f64; ring.len()];
        let mut members = Vec::with_capacity(jobs.len());
        for job in jobs {
            let bundle = (0..ring.len()).min_by(|&a, &b| loads[a].total_cmp(&loads[b]))?;
            loads[bundle] += rate(job);
            let later_epochs = board.jobs[job as usize].later_epochs;
            members.push(Member { job, bundle: bundle as u32, later_epochs, round: 0 });
        }
        members.sort_by_key(|member| member.bundle);
        let laps = members.iter().map(|member| member.later_epochs.saturating_add(1)).max()?;
        let last = laps.saturating_mul(ring.len() as u32);
        let round_of = vec![0; ring.len()];
        Some(Self::of(members, ring, round_of, last))
    }

    fn of(members: Vec<Member>, ring: Vec<u32>, round_of: Vec<u32>, last: u32) -> Self {
        let start = |bundle: usize| members.partition_point(|m| (m.bundle as usize) < bundle);
        let starts = (0..=ring.len()).map(start).collect();
        let mut member_of: Vec<(u32, u32)> =
            (0..).zip(&members).map(|(at, member)| (member.job, at)).collect();
        member_of.sort_unstable();
        Self { ring, round_of, members, starts, last, member_of, changed: Vec::new() }
    }

    /// The same on a [projected](Board::project) board, whose jobs have these numbers here: those that
    /// are through are left out.
    pub(super) fn project(&self, numbers: &[u32]) -> Self {
        let new_number = |job: u32| numbers.binary_search(&job).ok().map(|new| new as u32);
        let members = self.members.iter();
        let members = members.filter_map(|m| Some(Member { job: new_number(m.job)?, ..*m }));
        let (ring, round_of) = (self.ring.clone(), self.round_of.clone());
        let changed = self.changed.iter().filter_map(|&job| new_number(job)).collect();
        Self { changed, ..Self::of(members.collect(), ring, round_of, self.last) }
    }

    /// Whether there are no more jobs than workers, so that costs do not matter.
    pub(super) fn is_of_single_jobs(&self) -> bool {
        self.members.len() <= self.ring.len()
    }

    /// Whether jobs would wait for slower workers in front of them while others are idle: there are
    /// fewer jobs than workers, and the workers do not all take the same time.
    pub(super) fn keeps_waiting(&self, board: &Board) -> bool {
        let layout = &board.layout;
        let time = |&worker: &u32| {
            let held = layout.held(worker as usize).iter().map(|&partition| partition as usize);
            let training = held.filter(|&partition| partition < layout.training());
            let rows: f64 = training.map(|partition| layout.rows(partition)).sum();
            rows * layout.slowness(worker as usize)
        };
        let least = self.ring.iter().map(time).fold(f64::INFINITY, f64::min);
        let most = self.ring.iter().map(time).fold(0.0, f64::max);
        self.members.len() < self.ring.len() && most > least * ALIKE
    }

    /// The jobs that go round.
    pub(super) fn jobs(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.job as usize)
    }

    /// The workers of the ring.
    pub(super) fn workers(&self) -> impl Iterator<Item = usize> {
        self.ring.iter().map(|&worker| worker as usize)
    }

    /// Takes in that units which had started are open again.
    pub(super) fn rewind(&mut self) {
        self.round_of.fill(0);
        for member in &mut self.members {
            member.round = 0;
        }
        self.changed = self.members.iter().map(|member| member.job).collect();
    }

    /// Takes in that a unit of a job was done.
    pub(super) fn completed(&mut self, job: u32) {
        self.changed.push(job);
    }

    /// The units to start on `board`, at most one for each worker.
    pub(super) fn choose(&mut self, board: &Board, choices: &mut Vec<Choice>) {
        choices.clear();
        for job in std::mem::take(&mut self.changed) {
            self.follow(board, job);
        }
        if board.layout.validation() > 0 {
            validations(board, choices);
        }
        for place in 0..self.ring.len() {
            let worker = self.ring[place] as usize;
            let taken = || choices.iter().any(|choice| choice.worker as usize == worker);
            if board.seats[worker].free == 0 || taken() {
                continue;
            }
            let Some(job) = self.next(board, place) else {
                continue;
            };
            if let Some(partition) = board.partition_for(job as usize, worker) {
                let (partition, worker) = (partition as u32, worker as u32);
                choices.push(Choice { job, partition, worker });
            }
        }
        self.changed.extend(choices.iter().map(|choice| choice.job));
    }

    /// Brings the round of a job up to date.
    fn follow(&mut self, board: &Board, job: u32) {
        let places = self.ring.len() as u32;
        let Ok(at) = self.member_of.binary_search_by_key(&job, |&(member, _)| member) else {
            return;
        };
        let member = &mut self.members[self.member_of[at].1 as usize];
        let state = &board.jobs[job as usize];
        let lap = member.later_epochs.saturating_sub(state.later_epochs);
        member.round = member.round.max(lap * places);
        let end = (lap + 1) * places;
        if state.phase != Phase::Training {
            member.round = end;
        }
        let open = board.open(job as usize);
        while member.round < end {
            let worker = self.ring[((member.bundle + member.round) % places) as usize];
            if board.layout.any_open_here(open, worker as usize, Split::Train) {
                break;
            }
            member.round += 1;
        }
    }

    /// The job that a worker takes next, if it is there.
    fn next(&mut self, board: &Board, place: usize) -> Option<u32> {
        let places = self.ring.len();
        if !self.jobs().any(|job| board.jobs[job].has_work()) {
            return None;
        }
        while self.round_of[place] < self.last {
            let round = self.round_of[place];
            let bundle = (place + places - round as usize % places) % places;
            let members = &self.members[self.starts[bundle]..self.starts[bundle + 1]];
            let coming = |m: &&Member| m.round <= round && board.jobs[m.job as usize].has_work();
            if members.iter().any(|member| coming(&member)) {
                let here = members.iter().filter(|member| member.round == round);
                let mut ready = here.filter(|member| {
                    let phase = board.jobs[member.job as usize].phase;
                    board.is_ready(member.job as usize) && phase == Phase::Training
                });
                return ready.next().map(|member| member.job);
            }
            self.round_of[place] += 1;
        }
        None
    }
}

/// Validation units go first: their jobs cannot go on before they are done.
fn validations(board: &Board, choices: &mut Vec<Choice>) {
    for &worker in board.free() {
        let validating = board.ready().iter().map(|(_, job)| job).filter(|&job| {
            board.jobs[job as usize].phase == Phase::Validating
                && board.fits(job as usize, worker as usize)
        });
        let unit = validating.into_iter().find_map(|job| {
            let open = board.layout.open_here(
                board.open(job as usize),
                worker as usize,
                Split::Validation,
            );
            let untaken = open.map(|partition| partition as u32).find(|&partition| {
                !choices.iter().any(|other| other.job == job && other.partition == partition)
            });
            untaken.map(|partition| Choice { job, partition, worker })
        });
        choices.extend(unit);
    }
}
