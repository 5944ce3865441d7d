//! One file into the cache: fetched in pieces that outlast a broken connection, checked, and put in
//! its place as a whole.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use llada::hub::{Cache, Reference};
use ureq::{
    Body,
    http::{Response, StatusCode, header},
};

use super::{
    Remote,
    checksum::Hasher,
    http::{Ask, Client, Fault, Follow, cut_short},
};
use crate::error::{Failure, Interrupted};

/// So many new bytes make a broken connection one that got on.
const GOT_ON: u64 = 1 << 16;

/// Bytes read at a time.
const PIECE: usize = 1 << 18;

/// Files of one commit that go into the cache.
pub struct Download<'a> {
    /// The hub.
    pub client: &'a Client,
    /// The cache.
    pub cache: &'a Cache,
    /// The model.
    pub reference: &'a Reference,
    /// Its commit.
    pub commit: &'a str,
}

/// What a download tells while it goes on.
pub enum Event<'a> {
    /// So many bytes of the file are on the disk.
    At(u64),
    /// Something that a person should know.
    Note(&'a str),
}

impl Download<'_> {
    /// The folder of the commit.
    pub fn snapshot(&self) -> PathBuf {
        self.cache.snapshot(self.reference.repo(), self.commit)
    }

    /// Bytes that are still to be fetched of a file.
    pub fn left(&self, remote: &Remote) -> u64 {
        if self.is_there(remote) {
            return 0;
        }
        let length = |path: &Path| path.metadata().map_or(0, |data| data.len());
        let blob = length(&self.blob(remote));
        let there = if blob == remote.size { blob } else { length(&self.partial(remote)) };
        remote.size.saturating_sub(there)
    }

    /// Fetches a file, unless it is there.
    pub fn fetch(&self, remote: &Remote, event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if !self.is_there(remote) {
            let blob = self.blob(remote);
            create_dir(blob.parent().unwrap_or(&blob))?;
            let _lock = self.lock(remote, event)?;
            // Another program may have fetched it while this one waited.
            if blob.metadata().map_or(true, |data| data.len() != remote.size) {
                self.fetch_blob(remote, event)?;
                fs::rename(self.partial(remote), &blob)
                    .with_context(|| format!("cannot write `{}`", blob.display()))?;
            }
            self.link(remote)?;
        }
        event(Event::At(remote.size));
        Ok(())
    }

    /// Writes down which commit the branch or tag means.
    pub fn remember(&self) -> Result<()> {
        let revision = self.reference.revision();
        if revision == self.commit {
            return Ok(());
        }
        let path = self.cache.repo_dir(self.reference.repo()).join("refs").join(revision);
        let dir = path.parent().unwrap_or(&path);
        create_dir(dir)?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(self.commit.as_bytes())?;
            file.persist(&path).map_err(|e| e.error)
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(())
    }

    fn blob(&self, remote: &Remote) -> PathBuf {
        self.cache.repo_dir(self.reference.repo()).join("blobs").join(&remote.etag)
    }

    fn partial(&self, remote: &Remote) -> PathBuf {
        let mut path = self.blob(remote).into_os_string();
        path.push(".incomplete");
        path.into()
    }

    fn is_there(&self, remote: &Remote) -> bool {
        let blob = self.blob(remote).canonicalize();
        let path = self.snapshot().join(&remote.path);
        let is_whole = path.metadata().is_ok_and(|data| data.len() == remote.size);
        // Where links cannot be made the file is a copy, whose length must do.
        is_whole && (!path.is_symlink() || path.canonicalize().ok() == blob.ok())
    }

    /// Keeps other programs from fetching the same file at the same time.
    fn lock(&self, remote: &Remote, event: &mut dyn FnMut(Event<'_>)) -> Result<File> {
        let dir = self.cache.dir().join(".locks").join(self.reference.repo().folder());
        create_dir(&dir)?;
        let path = dir.join(format!("{}.lock", remote.etag));
        let failed = || format!("cannot lock `{}`", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(failed)?;
        let mut waits = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // Disks of other machines may have no locks; then nothing can be excluded.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(file);
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
                Err(TryLockError::WouldBlock) => {}
            }
            if !waits {
                waits = true;
                let path = &remote.path;
                event(Event::Note(&format!("another program fetches {path}: waiting for it")));
            }
            if self.client.is_stopped() {
                return Err(Interrupted.into());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Fetches the bytes into the partial file, until it is whole and its checksum right.
    fn fetch_blob(&self, remote: &Remote, event: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let mut partial = Partial::open(&self.partial(remote), remote)?;
        let (mut failed, mut was_wrong) = (0, false);
        loop {
            let before = partial.length;
            match self.fetch_rest(remote, &mut partial, event) {
                Ok(()) if partial.is_right()? => return partial.sync(),
                Ok(()) => {
                    partial.restart()?;
                    if was_wrong {
                        let message = format!(
                            "`{}` arrived twice with a wrong checksum; it is not kept",
                            remote.path
                        );
                        let hint = "a proxy between here and the hub may change files: try another \
                                    network, or HF_ENDPOINT";
                        return Err(Failure::new(message, hint).into());
                    }
                    was_wrong = true;
                    event(Event::Note(&format!("{}: wrong checksum, once more", remote.path)));
                }
                Err(Fault::Passing(error, wait)) => {
                    let got_on = partial.length >= before + GOT_ON;
                    failed = if got_on { 0 } else { failed + 1 };
                    if !got_on {
                        self.client.pause(failed, wait, error)?;
                    }
                }
                Err(Fault::Refused(refusal)) => {
                    let file = Some(remote.path.as_str());
                    return Err(self.client.refused(self.reference, file, &refusal).into());
                }
                Err(Fault::Final(error)) => return Err(error),
            }
        }
    }

    /// One connection: from where the partial file ends.
    fn fetch_rest(
        &self,
        remote: &Remote,
        partial: &mut Partial,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        if partial.length == remote.size {
            return Ok(());
        }
        let url = self.client.file_url(self.reference, self.commit, &remote.path);
        let ask = Ask::Get(partial.length);
        let response = self.client.send(&url, ask, Follow::Everywhere)?;
        if !continues(&response, partial.length) {
            partial.restart().map_err(Fault::Final)?;
            if !response.status().is_success() || response.status() == StatusCode::PARTIAL_CONTENT {
                return Err(cut_short(&io::Error::other("the hub does not go on there")));
            }
        }
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            event(Event::At(partial.length));
            if self.client.is_stopped() {
                partial.sync().map_err(Fault::Final)?;
                return Err(Fault::Final(Interrupted.into()));
            }
            let read = match body.read(&mut piece) {
                Ok(0) if partial.length == remote.size => return Ok(()),
                Ok(0) => return Err(cut_short(&io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) => return Err(cut_short(&error)),
            };
            if partial.length + read as u64 > remote.size {
                partial.restart().map_err(Fault::Final)?;
                let path = &remote.path;
                let message = format!(
                    "the hub sends more of `{path}` than the {} bytes it \
                                       has; nothing of it is kept",
                    remote.size
                );
                return Err(Fault::Final(Failure::new(message, "check HF_ENDPOINT").into()));
            }
            partial.write(&piece[..read]).map_err(Fault::Final)?;
        }
    }

    /// Gives the blob its name in the commit's folder: by a link, or a copy where there are none.
    fn link(&self, remote: &Remote) -> Result<()> {
        let (blob, path) = (self.blob(remote), self.snapshot().join(&remote.path));
        let dir = path.parent().unwrap_or(&path).to_path_buf();
        create_dir(&dir)?;
        let mut target = PathBuf::new();
        (0..=remote.path.split('/').count()).for_each(|_| target.push(".."));
        target.extend(["blobs", remote.etag.as_str()]);
        let make = |beside: &Path| {
            symlink(&target, beside)
                .or_else(|_| fs::hard_link(&blob, beside))
                .or_else(|_| fs::copy(&blob, beside).map(drop))
        };
        let link = || {
            let link = tempfile::Builder::new().prefix(".llada-").make_in(&dir, make)?;
            link.persist(&path).map_err(|e| e.error)
        };
        link().with_context(|| format!("cannot write `{}`", path.display()))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether an answer goes on at byte `from`.
fn continues(response: &Response<Body>, from: u64) -> bool {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return from == 0 && response.status().is_success();
    }
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    start.and_then(|start| start.trim().parse().ok()) == Some(from)
}

/// The beginning of a file, with the checksum so far.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    hasher: Option<Hasher>,
    begun: Box<dyn Fn() -> Option<Hasher>>,
}

impl Partial {
    /// Opens what an earlier attempt left, or begins.
    fn open(path: &Path, remote: &Remote) -> Result<Self> {
        if path.is_symlink() {
            let message = format!("`{}` is a link, which would be written through", path.display());
            return Err(Failure::new(message, "remove it").into());
        }
        let file = File::options().read(true).append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write `{}`", path.display()))?;
        let (checksum, size) = (remote.checksum.clone(), remote.size);
        let begun = move || checksum.as_ref().map(|checksum| Hasher::new(checksum, size));
        let (path, begun) = (path.to_path_buf(), Box::new(begun));
        let mut partial = Self { path, file, length: 0, hasher: begun(), begun };
        let mut piece = vec![0; PIECE];
        loop {
            let read = partial.file.read(&mut piece).with_context(|| partial.unreadable())?;
            if read == 0 {
                break;
            }
            partial.length += read as u64;
            partial.hash(&piece[..read]);
        }
        if partial.length > size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .with_context(|| format!("cannot write `{}`", self.path.display()))?;
        self.length += bytes.len() as u64;
        self.hash(bytes);
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).with_context(|| format!("cannot write `{}`", self.path.display()))?;
        self.length = 0;
        self.hasher = (self.begun)();
        Ok(())
    }

    /// Whether the bytes are those that the hub promised; true where it promised only a length.
    fn is_right(&mut self) -> Result<bool> {
        Ok(self.hasher.take().is_none_or(Hasher::matches))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    fn unreadable(&self) -> String {
        format!("cannot read `{}`", self.path.display())
    }
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))
}
