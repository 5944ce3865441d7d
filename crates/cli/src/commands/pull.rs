//! `llada pull`: a model of the hub into the cache.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use llada::{
    checkpoint::Checkpoint,
    config::ModelConfig,
    hub::{Cache, HubError, Reference},
};
use llada_kernels::{BlockFormat, DType};

use super::show;
use crate::{
    args::Pull,
    error::{Failure, Interrupted},
    hub::{Client, Download, Event, Kind, Plan, Remote, Settings, is_offline},
    interrupt::Flag,
    locate,
    term::{self, Term},
    view::{progress, units},
};

/// Bytes of a configuration or an index, at most.
const MAX_SMALL: u64 = 64 << 20;

/// Fetches what is missing, and prints where the model is.
pub fn run(args: &Pull, term: &Term) -> Result<()> {
    let reference = reference(args)?;
    let cache = Cache::from_env().map_err(llada::Error::from)?;
    if is_offline() {
        return offline(&cache, &reference);
    }
    let message = "stopping; what was fetched is kept, press Ctrl-C again to quit now";
    let stop = Flag::listen(term, Some(message))?;
    let client = Client::new(Settings::from_env(args.token.as_deref())?, stop, *term)?;
    term.note(&format!("asking {} for {reference}", client.endpoint()));
    let listing = client.listing(&reference)?;
    let plan = Plan::new(&reference, &listing)?;
    let (commit, reference) = (listing.commit.as_str(), &reference);
    let download = Download { client: &client, cache: &cache, reference, commit };
    let snapshot = download.snapshot();
    let read = |file: &str| {
        let path = snapshot.join(file);
        let is_small = path.metadata().is_ok_and(|data| data.len() <= MAX_SMALL);
        let text = if is_small { fs::read_to_string(&path).ok() } else { None };
        text.with_context(|| format!("`{}` is no text", path.display()))
    };

    fetch(&download, &plan.small, term)?;
    let config = plan.check(reference, read)?;
    if args.config_only {
        if config.is_none() {
            let message = format!("`{reference}` has no configuration apart from its weights");
            return Err(Failure::new(message, "leave out `--config-only`").into());
        }
        term.note(&format!("`llada show {}` tells what it needs", with_revision(reference, args)));
    } else {
        if let Some(config) = &config {
            say_memory(config, term);
        }
        fetch(&download, &plan.weights(read)?, term)?;
    }
    download.remember()?;
    let path = match plan.kind {
        Kind::Gguf => snapshot.join(plan.weights(read)?.concat()),
        _ => snapshot.clone(),
    };
    if plan.kind == Kind::Adapter {
        say_base(&snapshot, term);
    } else if !args.config_only {
        term.note(&format!("`llada chat -m {}` talks to it", with_revision(reference, args)));
    }
    term::answer(&path.display().to_string())
}

/// What is to be fetched.
fn reference(args: &Pull) -> Result<Reference> {
    let given = args.model();
    let reference = match locate::reference(Path::new(given)) {
        Some(reference) => reference,
        None => given.parse::<Reference>().map_err(llada::Error::from)?,
    };
    match &args.revision {
        Some(revision) => Ok(reference.at(revision).map_err(llada::Error::from)?),
        None => Ok(reference),
    }
}

/// The name to use the model by afterwards: a short one if that was given.
fn with_revision(reference: &Reference, args: &Pull) -> String {
    let is_short = args.revision.is_none() && !args.model().contains('/');
    if is_short { args.model().to_owned() } else { reference.to_string() }
}

/// Without the network, what is there has to do.
fn offline(cache: &Cache, reference: &Reference) -> Result<()> {
    let found = cache.find(reference).and_then(|found| match found.missing {
        None => Ok(found.path),
        Some(missing) => Err(HubError::Partial { reference: reference.clone().into(), missing }),
    });
    match found {
        Ok(path) => term::answer(&path.display().to_string()),
        Err(error) => {
            let hint = "HF_HUB_OFFLINE forbids to use the network: unset it to fetch";
            Err(Failure::new(error.to_string(), hint).into())
        }
    }
}

/// Fetches files, one after the other, under one bar.
fn fetch(download: &Download<'_>, files: &[String], term: &Term) -> Result<()> {
    let ask = |file: &String| {
        if download.client.is_stopped() {
            return Err(Interrupted.into());
        }
        download.client.remote(download.reference, download.commit, file)
    };
    let remotes = files.iter().map(ask).collect::<Result<Vec<Remote>>>()?;
    let total: u64 = remotes.iter().map(|remote| remote.size).fold(0, u64::saturating_add);
    let left: u64 = remotes.iter().map(|r| download.left(r)).fold(0, u64::saturating_add);
    if left == 0 && remotes.iter().all(|remote| download.left(remote) == 0) {
        term.detail(&format!("{}: all there", units::counted(files.len() as u64, "file")));
    } else {
        check_space(download.cache.dir(), left)?;
        term.note(&format!(
            "fetching {} of {}, {} of {}",
            units::counted(files.len() as u64, "file"),
            download.reference,
            units::bytes(left),
            units::bytes(total)
        ));
    }
    let bar = progress::bytes_bar(term);
    bar.set_length(total);
    let mut shown = Shown { bar: &bar, term, before: 0, told: (total - left) * 10 / total.max(1) };
    for remote in &remotes {
        bar.set_message(remote.path.clone());
        download.fetch(remote, &mut |event| shown.show(event, total))?;
        if remote.checksum.is_none() {
            let path = &remote.path;
            term.note(&format!("warning: the hub gives no checksum of {path}"));
        }
        shown.before += remote.size;
    }
    bar.finish_and_clear();
    Ok(())
}

/// How far the files are, as a bar or as a line at every tenth.
struct Shown<'a> {
    bar: &'a progress::Bar,
    term: &'a Term,
    /// Bytes of the files that are done.
    before: u64,
    /// Tenths that were told.
    told: u64,
}

impl Shown<'_> {
    fn show(&mut self, event: Event<'_>, total: u64) {
        match event {
            Event::Note(text) => self.term.note(text),
            Event::At(bytes) => {
                let at = self.before + bytes;
                self.bar.set_position(at);
                let tenths = (u128::from(at) * 10 / u128::from(total.max(1))) as u64;
                // Small files are there before anybody has read a line.
                if self.bar.is_hidden() && tenths > self.told && total > 10 << 20 {
                    let (at, total) = (units::bytes(at), units::bytes(total));
                    self.term.note(&format!("{at} of {total}"));
                }
                self.told = self.told.max(tenths);
            }
        }
    }
}

/// Checks that the disk has room for what is to come.
fn check_space(cache: &Path, left: u64) -> Result<()> {
    let there = cache.ancestors().find(|dir| dir.is_dir());
    let Some(free) = there.and_then(|dir| fs4::available_space(dir).ok()) else { return Ok(()) };
    if left > free {
        let (left, free) = (units::bytes(left), units::bytes(free));
        let message = format!("{left} are to be fetched, and `{}` has {free}", cache.display());
        let hint = "free some space with `llada rm`, or set HF_HOME to a folder on another disk";
        return Err(Failure::new(message, hint).into());
    }
    Ok(())
}

/// Says before gigabytes are fetched whether this machine can run them.
fn say_memory(config: &ModelConfig, term: &Term) {
    let Some(available) = super::doctor::memory("MemAvailable") else { return };
    let bf16 = show::weights_in(config, DType::Bf16);
    let q4 = show::weights_in(config, DType::Blocks(BlockFormat::Q4K));
    if bf16 > available {
        term.note(&format!(
            "its weights in bf16 take {} of memory and {} are available; in Q4_K they take {} \
             (`llada quantize` makes it)",
            units::bytes(bf16),
            units::bytes(available),
            units::bytes(q4)
        ));
    }
}

/// Says which model adapters need beside them.
fn say_base(snapshot: &Path, term: &Term) {
    let opened = Checkpoint::open(snapshot);
    match opened.and_then(|adapters| Ok(adapters.base()?.map(|base| base.path().to_owned()))) {
        Ok(Some(base)) => term.note(&format!("these adapters belong to {}", base.display())),
        Ok(None) => {}
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            term.note(&format!("they cannot be used yet: {}; {hint}", error));
        }
    }
}
