//! The processes of cells: what they use together, and their end.

use std::{cell::RefCell, fs, process::Child};

use rustix::process::{Pid, Signal, WaitOptions};

/// What a process and all that it started use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Processes and threads.
    pub tasks: usize,
    /// Bytes of memory that belong to no file.
    pub bytes: u64,
}

/// Cells that are running; dropped, they end with all that they started.
#[derive(Debug)]
pub struct Cells(RefCell<Vec<Child>>);

impl Cells {
    pub fn new() -> Self {
        Self(RefCell::default())
    }

    /// Takes a cell in; its number.
    pub fn add(&self, cell: Child) -> u32 {
        let id = cell.id();
        self.0.borrow_mut().push(cell);
        id
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        for cell in self.0.get_mut() {
            if let Some(group) = pid(cell.id()) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _ = cell.kill();
            let _ = cell.wait();
        }
        end_orphans();
    }
}

/// Has processes that lose their parent come to this one, so that none escapes.
pub fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Ends all that this process has started and still has.
fn end_orphans() {
    // A process that starts others faster than they are ended is caught by the limit of its cell.
    for _ in 0..10_000 {
        let orphans = tree(std::process::id());
        let mut left = false;
        for &orphan in orphans.iter().skip(1) {
            let Some(pid) = pid(orphan) else { continue };
            left = true;
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
        if !left {
            return;
        }
        std::thread::yield_now();
    }
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// What the process `root` and all that it started use; nothing where the system does not tell.
pub fn used(root: u32) -> Used {
    let mut used = Used::default();
    for id in tree(root) {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let number =
            |key: &str| -> u64 { field(&status, key).and_then(|n| n.parse().ok()).unwrap_or(0) };
        used.tasks += number("Threads:") as usize;
        used.bytes += (number("RssAnon:") + number("RssShmem:")) << 10;
    }
    used
}

/// The first word behind `key` in a `/proc/N/status`.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()
}

/// Processes and threads of this user, which count against its limit with those of a program.
pub fn tasks_of_this_user() -> usize {
    let user = rustix::process::geteuid().as_raw().to_string();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let threads = |status: String| -> Option<usize> {
        let is_own = field(&status, "Uid:")? == user;
        is_own.then(|| field(&status, "Threads:")?.parse().ok()).flatten()
    };
    let statuses = numbers.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    statuses.filter_map(threads).sum()
}

/// `root` and all that it started, directly or not.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&id) = found.get(next) {
        next += 1;
        found.extend(children(id).into_iter().filter(|child| *child != root));
        // A bomb grows while it is counted.
        if found.len() > 100_000 {
            break;
        }
    }
    found
}

fn children(id: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let numbers = |list: String| list.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    lists.flatten().flat_map(|list| -> Vec<u32> { numbers(list) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_uses_something_and_has_the_children_that_it_starts() {
        let own = std::process::id();
        let used = used(own);
        assert!(used.tasks >= 1 && used.bytes > 0, "{used:?}");
        assert!(tree(own).contains(&own) && tasks_of_this_user() >= used.tasks);
    }
}
