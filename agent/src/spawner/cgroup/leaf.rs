//! The cgroup of one keeper and of what it runs, as the keeper sees it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::groups::{PROCESSES, create, remove_empty, write};

/// The variable by which a template's workers know that they are to have leaves of their own beside the template's, which it
/// names. None of them passes it on.
const VARIABLE: &str = "FLEETPOOL_LEAF";
/// Files that have limits, and those that count whom the kernel has killed, in either version.
const LIMITS: [&str; 3] = ["pids.max", "memory.limit_in_bytes", "memory.max"];
const KILLS: [&str; 2] = ["memory.oom_control", "memory.events"];
/// How the limit of memory is taken away.
const NO_LIMIT: [(&str, &str); 2] = [("memory.limit_in_bytes", "-1"), ("memory.max", "max")];
/// A leaf in the making looks like one that is over.
const TRIES: usize = 5;

/// A folder a hierarchy; none where there are no cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaf(pub(super) Vec<PathBuf>);

impl Leaf {
    /// Where the kernel counts whom it has killed here for want of memory.
    pub(crate) fn kills(&self) -> Option<File> {
        let files = |folder: &PathBuf| KILLS.map(|file| folder.join(file));
        let mut files = self.0.iter().flat_map(files);
        files.find_map(|file| File::open(file).ok())
    }

    /// Takes away the limit of memory, so that only those above hold.
    pub(crate) fn lift_memory(&self) {
        for folder in &self.0 {
            for (file, none) in NO_LIMIT {
                // Where there is no such limit there is nothing to take away.
                if folder.join(file).exists() {
                    write(folder, file, none).ok();
                }
            }
        }
    }

    /// What a template is started with.
    pub(crate) fn variable(&self) -> Option<(OsString, OsString)> {
        let folders = self.0.iter().map(|folder| folder.as_os_str().as_bytes());
        // No cgroup has a line's end in its name.
        let folders = folders.collect::<Vec<_>>().join(&b'\n');
        (!folders.is_empty()).then(|| (VARIABLE.into(), OsString::from_vec(folders)))
    }

    /// The template's, in the environment that it has left to a keeper.
    pub(crate) fn of_template() -> Self {
        let folders = std::env::var_os(VARIABLE).unwrap_or_default();
        let folders = folders.as_bytes().split(|&byte| byte == b'\n');
        let folders = folders.filter(|folder| !folder.is_empty());
        Self(
            folders
                .map(|folder| OsString::from_vec(folder.to_vec()).into())
                .collect(),
        )
    }

    /// Moves this process and its worker into a leaf of their own, with this one's limits. Where that cannot be, both stay, and
    /// are held with the others that are here.
    pub(crate) fn beside(self, worker: Pid) -> Self {
        let beside = |folder: PathBuf| {
            let made = (0..TRIES).find_map(|_| make_beside(&folder, worker).ok());
            made.unwrap_or(folder)
        };
        Self(self.0.into_iter().map(beside).collect())
    }
}

fn make_beside(folder: &Path, worker: Pid) -> io::Result<PathBuf> {
    let above = folder.parent().ok_or(io::ErrorKind::NotFound)?;
    remove_empty(above);
    let leaf = above.join(format!("w{}", std::process::id()));
    create(&leaf)?;
    for file in LIMITS {
        if let Ok(limit) = fs::read(folder.join(file)) {
            write(&leaf, file, limit)?;
        }
    }
    // From here on nobody removes it.
    write(&leaf, PROCESSES, "0")?;
    // It may have ended.
    write(&leaf, PROCESSES, worker.to_string()).ok();
    Ok(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_of_either_version_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let leaf = |name: &str| folder.path().join(name);
        let count = |leaf: &Leaf| leaf.kills().map(|file| io::read_to_string(file).unwrap());
        for (name, file) in [("1", "memory.oom_control"), ("2", "memory.events")] {
            fs::create_dir(leaf(name)).unwrap();
            fs::write(leaf(name).join(file), name).unwrap();
        }
        fs::create_dir(leaf("pids")).unwrap();
        assert_eq!(
            count(&Leaf(vec![leaf("pids"), leaf("1")])),
            Some("1".to_owned())
        );
        assert_eq!(count(&Leaf(vec![leaf("2")])), Some("2".to_owned()));
        assert_eq!(count(&Leaf(vec![leaf("pids")])), None);
    }

    #[test]
    fn a_relay_has_no_limit_of_memory_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["1", "2"].map(|name| folder.path().join(name));
        for leaf in [&first, &second] {
            fs::create_dir(leaf).unwrap();
        }
        // To a real one one writes what is to be in it.
        fs::write(first.join("memory.limit_in_bytes"), "").unwrap();
        fs::write(second.join("memory.max"), "").unwrap();
        Leaf(vec![first.clone(), second.clone()]).lift_memory();
        let said = |leaf: &Path, file: &str| fs::read_to_string(leaf.join(file)).ok();
        assert_eq!(said(&first, "memory.limit_in_bytes").as_deref(), Some("-1"));
        assert_eq!(said(&first, "memory.max"), None);
        assert_eq!(said(&second, "memory.max").as_deref(), Some("max"));
    }

    #[test]
    fn a_worker_has_its_templates_limits_and_empty_leaves_go() {
        let folder = tempfile::tempdir().unwrap();
        let [template, over] = ["1", "w2"].map(|name| folder.path().join(name));
        fs::create_dir(&over).unwrap();
        fs::create_dir(&template).unwrap();
        fs::write(template.join("pids.max"), "301\n").unwrap();
        fs::write(template.join("memory.max"), "max\n").unwrap();
        let made = Leaf(vec![template.clone()]).beside(Pid::from_raw(7)).0;
        assert_eq!(made.len(), 1);
        assert_ne!(made[0], template);
        let said = |file: &str| fs::read_to_string(made[0].join(file)).ok();
        assert_eq!(said("pids.max").as_deref(), Some("301\n"));
        assert_eq!(said("memory.max").as_deref(), Some("max\n"));
        assert_eq!(said("memory.limit_in_bytes"), None);
        assert_eq!(
            said(PROCESSES).as_deref(),
            Some("07"),
            "the keeper, its worker"
        );
        assert!(!over.exists());
        let gone = folder.path().join("gone/1");
        let stays = Leaf(vec![gone.clone()]).beside(Pid::from_raw(7));
        assert_eq!(stays.0, [gone]);
    }
}
