//! Where an output really lies, and names beside it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// More links than this are a loop.
const MAX_LINKS: usize = 40;

/// Where writing to a path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At a file, a folder or nothing yet: links followed, its folder in the one spelling that all
    /// processes agree on.
    At(PathBuf),
    /// In a pipe, a device or an open file of this process, which cannot be replaced.
    Straight,
}

/// Follows the links of a path, and makes the spelling of its folder unique. A folder that is not
/// there yet is spelled as given.
pub(super) fn resolve(path: &Path) -> io::Result<Place> {
    let mut at = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        let kind = match fs::symlink_metadata(&at) {
            Ok(kind) => kind,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Place::At(missing(&at))),
            Err(e) => return Err(e),
        };
        if kind.is_symlink() {
            // `/dev/stdout` leads to a file that is open already, and may be appended to.
            if ["/dev", "/proc"].iter().any(|folder| at.starts_with(folder)) {
                return Ok(Place::Straight);
            }
            let to = fs::read_link(&at)?;
            at = at.parent().map_or(to.clone(), |folder| folder.join(to));
            continue;
        }
        let is_plain = kind.is_file() || kind.is_dir();
        return Ok(if is_plain { Place::At(fs::canonicalize(&at)?) } else { Place::Straight });
    }
    Err(io::Error::other("too many links"))
}

fn missing(path: &Path) -> PathBuf {
    match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}

/// The folder of a resolved path.
pub(super) fn folder(target: &Path) -> &Path {
    target.parent().unwrap_or(target)
}

/// The name of a resolved path as part of other names: shortened where it is very long.
pub(super) fn label(target: &Path) -> String {
    const LONG: usize = 180;
    let name = target.file_name().unwrap_or_default();
    let text = name.to_string_lossy();
    if text.len() <= LONG {
        return text.into_owned();
    }
    // A character has four bytes at most.
    let cut: String = text.chars().take(LONG / 4).collect();
    format!("{cut}-{:08x}", crc32c::crc32c(name.as_encoded_bytes()))
}

/// Whether a folder must stay where it is: something else than its name leads to it.
pub(super) fn is_fixed(target: &Path) -> bool {
    let is_working_folder = || {
        let working = env::current_dir().and_then(fs::canonicalize);
        working.is_ok_and(|working| working.starts_with(target))
    };
    target.is_dir() && (is_mount_point(target) || is_working_folder())
}

#[cfg(unix)]
fn is_mount_point(target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|kind| kind.dev()).ok();
    target.parent().is_none_or(|folder| device(target) != device(folder))
}

#[cfg(not(unix))]
fn is_mount_point(target: &Path) -> bool {
    target.parent().is_none()
}

/// Gives `new` the permissions of `old`, which it is about to replace, and as far as possible its
/// owner.
pub(super) fn like(old: &fs::Metadata, new: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, chown};
        let own = fs::metadata(new)?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            let _ = chown(new, Some(old.uid()), Some(old.gid()));
        }
    }
    fs::set_permissions(new, old.permissions())
}
