//! Models by name: loaded when they are asked for, unloaded when nobody has for long, or when others need
//! their memory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use llada::{
    Codec, Compute, Session,
    diffusion::{
        Sampler, SamplerError, Settings,
        footprint::{Footprint, Weights},
    },
    model::MaskPredictor,
};
use llada_kernels::Cpu;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    error::{ApiError, ApiResult},
    metrics::Metrics,
    runner::{Capacity, Runner, Turn},
};

/// How long a model waits until others end their work and make room for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A model in memory.
#[derive(Debug)]
pub(crate) struct Model {
    /// What requests call it.
    pub(crate) name: String,
    /// Where its files are.
    pub(crate) path: PathBuf,
    /// What makes canvases of texts, and texts of canvases.
    pub(crate) codec: Arc<Codec>,
    /// Whether prompts are messages to it.
    pub(crate) is_for_chat: bool,
    /// Its engine.
    pub(crate) runner: Runner,
    /// Bytes of its weights.
    bytes: u64,
}

/// A model that may be in memory.
#[derive(Debug)]
struct Entry {
    name: String,
    path: PathBuf,
    /// Its bytes on disk.
    size: u64,
    loaded: Mutex<Option<Arc<Model>>>,
}

/// All models of a server.
#[derive(Debug)]
pub(crate) struct Models {
    entries: Vec<Entry>,
    cpu: Cpu,
    compute: Compute,
    capacity: Capacity,
    /// Bytes of weights that may be in memory; `None` is no limit.
    memory: Option<u64>,
    turn: Turn,
    metrics: Arc<Metrics>,
    /// One loads at a time, so that each sees what the others take.
    loading: Mutex<()>,
}

impl Models {
    /// The models of these names, the first of which is meant where none is named.
    pub(crate) fn new(
        named: Vec<(String, PathBuf)>,
        (cpu, compute): (Cpu, Compute),
        capacity: Capacity,
        memory: Option<u64>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let entry = |(name, path): (String, PathBuf)| {
            let (size, loaded) = (size(&path), Mutex::new(None));
            Entry { name, path, size, loaded }
        };
        let entries = named.into_iter().map(entry).collect();
        let (turn, loading) = (Turn::default(), Mutex::new(()));
        Self { entries, cpu, compute, capacity, memory, turn, metrics, loading }
    }

    /// The names, the first of which is meant where none is named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The model that a request names, loaded if it was not.
    ///
    /// # Errors
    /// If there is none of that name, it cannot be loaded, or there is no memory for it now.
    pub(crate) async fn get(&self, name: Option<&str>) -> ApiResult<Arc<Model>> {
        let entry = self.find(name)?;
        let slot = entry.loaded.lock().await;
        if let Some(model) = slot.as_ref().filter(|model| model.runner.is_alive()) {
            return Ok(Arc::clone(model));
        }
        drop(slot);
        let _loading = self.loading.lock().await;
        let mut slot = entry.loaded.lock().await;
        // Somebody may have loaded it since.
        if let Some(model) = slot.as_ref().filter(|model| model.runner.is_alive()) {
            return Ok(Arc::clone(model));
        }
        *slot = None;
        let patience = Instant::now() + PATIENCE;
        while let Err(full) = self.make_room(entry).await {
            if Instant::now() >= patience {
                return Err(full);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let model = self.load(entry).await.map_err(ApiError::internal)?;
        *slot = Some(Arc::clone(&model));
        drop(slot);
        self.count().await;
        Ok(model)
    }

    /// Loads the model that is meant where none is named.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub(crate) async fn load_first(&self) -> Result<(), String> {
        let Some(entry) = self.entries.first() else { return Err("no model is named".into()) };
        let mut slot = entry.loaded.lock().await;
        *slot = Some(self.load(entry).await.map_err(|error| error.to_string())?);
        drop(slot);
        self.metrics.models(1);
        Ok(())
    }

    /// The model that a request names, if it is in memory.
    pub(crate) fn peek(&self, name: Option<&str>) -> ApiResult<Option<Arc<Model>>> {
        Ok(self.find(name)?.loaded.try_lock().ok().and_then(|slot| slot.clone()))
    }

    /// Unloads what nobody has asked for so long.
    pub(crate) async fn unload_idle(&self, time: Duration) {
        let now = Instant::now();
        for entry in &self.entries {
            let mut slot = entry.loaded.lock().await;
            if idle_since(&slot).is_some_and(|since| now.duration_since(since) >= time) {
                tracing::info!(model = entry.name, "unloaded, as nobody asked for it");
                *slot = None;
            }
        }
        self.count().await;
    }

    fn find(&self, name: Option<&str>) -> ApiResult<&Entry> {
        let is_meant = |entry: &&Entry| match name {
            None | Some("" | "default") => true,
            // Clients of one model name whatever they are set to.
            Some(name) => entry.name == name || self.entries.len() == 1,
        };
        self.entries.iter().find(is_meant).ok_or_else(|| {
            let names: Vec<_> = self.names().collect();
            let name: String = name.unwrap_or_default().chars().take(200).collect();
            let message =
                format!("there is no model `{name}` here; there are: {}", names.join(", "));
            let error = ApiError::new(StatusCode::NOT_FOUND, message).coded("model_not_found");
            ApiError { param: Some("model".into()), ..error }
        })
    }

    /// Tells how many models are in memory.
    async fn count(&self) {
        let mut loaded = 0;
        for entry in &self.entries {
            loaded += usize::from(entry.loaded.lock().await.is_some());
        }
        self.metrics.models(loaded);
    }

    /// Unloads those that nobody uses, the longest idle first, until there is room for `entry`.
    async fn make_room(&self, entry: &Entry) -> ApiResult<()> {
        let Some(memory) = self.memory else { return Ok(()) };
        let mut others: Vec<(&Entry, MutexGuard<'_, Option<Arc<Model>>>)> = Vec::new();
        for other in self.entries.iter().filter(|other| !std::ptr::eq(*other, entry)) {
            others.push((other, other.loaded.lock().await));
        }
        let bytes = |slot: &Option<Arc<Model>>| slot.as_ref().map_or(0, |model| model.bytes);
        let mut taken: u64 = others.iter().map(|(_, slot)| bytes(slot)).sum();
        others.sort_by_key(|(_, slot)| idle_since(slot));
        for (other, slot) in others.iter_mut().filter(|(_, slot)| idle_since(slot).is_some()) {
            if taken + entry.size > memory {
                tracing::info!(model = other.name, "unloaded to make room");
                taken -= bytes(slot);
                **slot = None;
            }
        }
        // A single model may be larger than the limit: then it is alone.
        match taken > 0 && taken + entry.size > memory {
            true => {
                let message =
                    "other models are at work, and there is no memory for this one beside them";
                Err(ApiError::unavailable(message, Duration::from_secs(10)))
            }
            false => Ok(()),
        }
    }

    async fn load(&self, entry: &Entry) -> Result<Arc<Model>, LoadError> {
        let (path, cpu, begun) = (entry.path.clone(), self.cpu.clone(), Instant::now());
        let compute = self.compute;
        let open = move || {
            let mut session = Session::open_on(path, cpu)?;
            compute.set(&mut session.predictor);
            llada::Result::Ok(session)
        };
        let session = tokio::task::spawn_blocking(open).await??;
        let is_for_chat = session.is_for_chat()?;
        let Session { codec, predictor } = session;
        let bytes = Weights::of(predictor.model()).bytes as u64;
        let each = memory_of_each(&codec, &predictor, is_for_chat)?;
        let (capacity, turn) = (self.capacity, Arc::clone(&self.turn));
        let (name, metrics) = (entry.name.clone(), Arc::clone(&self.metrics));
        let runner = Runner::start(name, predictor, capacity, turn, metrics)?;
        let seconds = begun.elapsed().as_secs_f64();
        let parallel = capacity.parallel;
        let mib = |bytes: u64| bytes >> 20;
        tracing::info!(
            model = entry.name,
            seconds,
            "loaded: {} MiB of weights, and up to {} MiB for each of {parallel} sequences",
            mib(bytes),
            mib(each).max(1),
        );
        let (name, path) = (entry.name.clone(), entry.path.clone());
        Ok(Arc::new(Model { name, path, codec, is_for_chat, runner, bytes }))
    }
}

/// The sampler of a request without settings.
///
/// # Errors
/// If what the model proposes contradicts itself.
pub(crate) fn usual_sampler(codec: &Codec, is_for_chat: bool) -> Result<Sampler, SamplerError> {
    let settings = Settings::default();
    match is_for_chat {
        true => codec.chat_sampler(&settings),
        false => codec.sampler(&settings, 0),
    }
}

/// The bytes that a sequence takes besides the weights when it is as long as it can be.
fn memory_of_each(
    codec: &Codec,
    predictor: &MaskPredictor,
    is_for_chat: bool,
) -> llada::Result<u64> {
    let sampler = usual_sampler(codec, is_for_chat)?;
    let prompt = codec.config().max_sequence_length.saturating_sub(sampler.gen_length);
    let threads = predictor.cpu().threads();
    let Footprint { cache, scratch, .. } =
        Footprint::of(predictor.model(), &sampler, prompt, threads)?;
    Ok((cache + scratch) as u64)
}

/// Why a model is not in memory.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0}")]
    Model(#[from] llada::Error),
    #[error("the system has no thread for it: {0}")]
    Thread(#[from] std::io::Error),
    #[error("a fault of the program: {0}")]
    Fault(#[from] tokio::task::JoinError),
}

/// Since when a model in memory is of no use to anybody: no request has it, and nothing runs.
fn idle_since(slot: &Option<Arc<Model>>) -> Option<Instant> {
    slot.as_ref().filter(|model| Arc::strong_count(model) == 1)?.runner.idle_since()
}

/// The bytes of a model's files.
fn size(path: &Path) -> u64 {
    let of = |path: &Path| path.metadata().map_or(0, |data| data.len());
    if path.is_file() {
        return of(path);
    }
    let files = path.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    files
        .filter(|file| file.extension().is_some_and(|end| end == "safetensors"))
        .map(|f| of(&f))
        .sum()
}
