//! The engine thread of one model. Works come by a channel, share forward passes, and tell their steps;
//! a work whose listener has gone leaves between two passes.

use std::{
    collections::{HashMap, VecDeque},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use llada::{
    diffusion::Step,
    engine::{Engine, Event, WorkId},
    model::MaskPredictor,
};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{metrics::Metrics, task::Task};

/// How many works run and wait, and how large their passes are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    /// Works that share passes.
    pub(crate) parallel: usize,
    /// Works that may wait.
    pub(crate) queue: usize,
    /// Tokens of a forward pass, unless one sequence alone has more.
    pub(crate) budget: usize,
}

/// What a work tells its request.
#[derive(Debug)]
pub(crate) enum News {
    /// It is fed for the first time, after it had waited so long, without so many tokens that were cached.
    Begun {
        /// Since it was submitted.
        waited: Duration,
        /// Tokens at its beginning that are not fed again.
        reused: usize,
    },
    /// It took a step.
    Step(Step),
    /// It is done.
    Done(Box<Task>),
    /// It cannot go on.
    Failed(Arc<llada::Error>),
    /// Its time is over.
    Late,
}

/// The right to have works in a runner. It ends with the request that has it.
#[derive(Debug, Clone)]
pub(crate) struct Ticket(
    #[expect(dead_code, reason = "held until it is dropped")] Arc<OwnedSemaphorePermit>,
);

/// A work on its way to the engine.
struct Job {
    task: Task,
    listener: Listener,
}

/// Who is told of a work, and until when.
struct Listener {
    news: UnboundedSender<News>,
    submitted: Instant,
    deadline: Instant,
    _ticket: Ticket,
}

impl Listener {
    /// Whether it has gone, or its time is over by `now`, which it is told.
    fn goes(&self, now: Instant) -> bool {
        let is_late = self.deadline <= now;
        if is_late {
            _ = self.news.send(News::Late);
        }
        is_late || self.news.is_closed()
    }
}

/// What a slot does, for those who ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The number of its work.
    pub(crate) work: usize,
    /// Forward passes of it so far.
    pub(crate) nfe: usize,
}

/// Counts of one model that handlers read.
#[derive(Debug, Default)]
struct Shared {
    slots: Vec<Slot>,
    waiting: usize,
    /// How long works take, on average of the last ones.
    usual: Duration,
    /// When it last had something to do.
    active: Option<Instant>,
}

/// The way to the engine thread of a model; the thread ends when the last one is gone.
#[derive(Debug)]
pub(crate) struct Runner {
    inbox: Sender<Job>,
    tickets: Arc<Semaphore>,
    capacity: Capacity,
    shared: Arc<Mutex<Shared>>,
}

/// No more works are taken in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// When it is worth another try.
    pub(crate) retry_after: Duration,
}

/// Passes of several models never run at the same time: each takes all cores.
pub(crate) type Turn = Arc<Mutex<()>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Starts the engine thread of the model of that name.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(crate) fn start(
        name: String,
        predictor: MaskPredictor,
        capacity: Capacity,
        turn: Turn,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (inbox, jobs) = mpsc::channel();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let told = Arc::clone(&shared);
        thread::Builder::new().name("engine".into()).spawn(move || {
            let mut predictor = predictor;
            // The next turns of so many conversations.
            predictor.retain(capacity.parallel);
            let run =
                || Loop::new(&name, &jobs, capacity, &told, &turn, &metrics).run(&mut predictor);
            if panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
                tracing::error!("the engine thread ended by a fault of the program");
            }
        })?;
        let tickets = Arc::new(Semaphore::new(capacity.parallel + capacity.queue));
        Ok(Self { inbox, tickets, capacity, shared })
    }

    /// The right to submit `works` works, at a time or one after the other.
    ///
    /// # Errors
    /// If as many run and wait as may.
    pub(crate) fn ticket(&self, works: usize) -> Result<Ticket, Full> {
        // What could never fit has its way when nothing else is there.
        let works = works.min(self.capacity.parallel + self.capacity.queue).max(1);
        let tickets = Arc::clone(&self.tickets);
        let permits = tickets.try_acquire_many_owned(works as u32);
        permits.map(|permit| Ticket(Arc::new(permit))).map_err(|_| {
            let Shared { usual, waiting, .. } = &*lock(&self.shared);
            let rounds = 1 + waiting / self.capacity.parallel;
            Full { retry_after: (*usual * rounds as u32).max(Duration::from_secs(1)) }
        })
    }

    /// Has a work done. Whoever drops the receiver cancels it.
    pub(crate) fn submit(
        &self,
        task: Task,
        deadline: Instant,
        ticket: Ticket,
    ) -> UnboundedReceiver<News> {
        let (news, receiver) = unbounded_channel();
        let listener = Listener { news, submitted: Instant::now(), deadline, _ticket: ticket };
        // Where the thread has ended, the receiver's channel closes without news.
        _ = self.inbox.send(Job { task, listener });
        receiver
    }

    /// Whether the engine thread runs.
    pub(crate) fn is_alive(&self) -> bool {
        // It has its share as long as it runs.
        Arc::strong_count(&self.shared) > 1
    }

    /// What the slots do.
    pub(crate) fn slots(&self) -> Vec<Option<Slot>> {
        let mut slots: Vec<_> = lock(&self.shared).slots.iter().copied().map(Some).collect();
        slots.resize(self.capacity.parallel.max(slots.len()), None);
        slots
    }

    /// Since when nothing runs or waits; `None` while something does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let shared = lock(&self.shared);
        let is_idle =
            self.tickets.available_permits() == self.capacity.parallel + self.capacity.queue;
        shared.active.filter(|_| is_idle && shared.slots.is_empty())
    }
}

/// The engine thread.
struct Loop<'a> {
    name: &'a str,
    jobs: &'a Receiver<Job>,
    capacity: Capacity,
    shared: &'a Mutex<Shared>,
    turn: &'a Mutex<()>,
    metrics: &'a Metrics,
    waiting: VecDeque<Job>,
    running: HashMap<WorkId, Listener>,
}

impl<'a> Loop<'a> {
    fn new(
        name: &'a str,
        jobs: &'a Receiver<Job>,
        capacity: Capacity,
        shared: &'a Mutex<Shared>,
        turn: &'a Mutex<()>,
        metrics: &'a Metrics,
    ) -> Self {
        lock(shared).active = Some(Instant::now());
        let (waiting, running) = (VecDeque::new(), HashMap::new());
        Self { name, jobs, capacity, shared, turn, metrics, waiting, running }
    }

    fn run(mut self, predictor: &mut MaskPredictor) {
        let mut engine = Engine::new(predictor);
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                self.tell(&engine);
                match self.jobs.recv() {
                    Ok(job) => self.waiting.push_back(job),
                    Err(_) => return,
                }
            }
            self.waiting.extend(self.jobs.try_iter());
            self.dismiss(&mut engine);
            self.admit(&mut engine);
            self.tell(&engine);
            if !engine.is_empty() {
                self.step(&mut engine);
            }
        }
    }

    /// Lets go whose listeners have gone or whose time is over.
    fn dismiss(&mut self, engine: &mut Engine<'_, MaskPredictor, Task>) {
        let now = Instant::now();
        self.waiting.retain(|job| !job.listener.goes(now));
        self.running.retain(|&id, listener| {
            let goes = listener.goes(now);
            if goes {
                engine.cancel(id);
            }
            !goes
        });
    }

    /// Takes in what there is room for.
    fn admit(&mut self, engine: &mut Engine<'_, MaskPredictor, Task>) {
        while self.running.len() < self.capacity.parallel
            && let Some(Job { task, listener }) = self.waiting.pop_front()
        {
            self.running.insert(engine.admit(task), listener);
        }
    }

    /// One forward pass.
    fn step(&mut self, engine: &mut Engine<'_, MaskPredictor, Task>) {
        let turn = lock(self.turn);
        let begun = Instant::now();
        let Self { running, shared, .. } = self;
        let pass = engine.step(self.capacity.budget, &mut |id, event| match event {
            Event::Begun(reused) => {
                if let Some(Listener { news, submitted, .. }) = running.get(&id) {
                    _ = news.send(News::Begun { waited: begun - *submitted, reused });
                }
            }
            Event::Step(task) => {
                if let (Some(running), Some(step)) = (running.get(&id), task.last_step()) {
                    _ = running.news.send(News::Step(step.clone()));
                }
            }
            Event::Done(task) => {
                if let Some(Listener { news, submitted, _ticket, .. }) = running.remove(&id) {
                    {
                        let usual = &mut lock(shared).usual;
                        *usual = (*usual * 7 + submitted.elapsed()) / 8;
                    }
                    // Whoever hears the news may ask for a ticket at once.
                    drop(_ticket);
                    _ = news.send(News::Done(Box::new(task)));
                }
            }
            Event::Failed(_, error) => {
                if let Some(running) = running.remove(&id) {
                    _ = running.news.send(News::Failed(Arc::new(error)));
                }
            }
        });
        drop(turn);
        match pass {
            Ok(pass) => self.metrics.pass(&pass, begun.elapsed()),
            Err(error) => {
                tracing::error!(%error, "a forward pass failed");
                let error = Arc::new(error);
                for (id, running) in self.running.drain() {
                    engine.cancel(id);
                    _ = running.news.send(News::Failed(Arc::clone(&error)));
                }
            }
        }
    }

    /// Tells handlers how things stand.
    fn tell(&self, engine: &Engine<'_, MaskPredictor, Task>) {
        let slots = engine.works().map(|(id, task)| Slot {
            work: id.number(),
            nfe: task.last_step().map_or(0, |step| step.nfe),
        });
        let mut shared = lock(self.shared);
        shared.slots.clear();
        shared.slots.extend(slots);
        shared.waiting = self.waiting.len();
        shared.active = Some(Instant::now());
        self.metrics.load(self.name, self.running.len(), self.waiting.len());
    }
}
