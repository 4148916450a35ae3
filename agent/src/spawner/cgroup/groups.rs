//! The spawner's side: the cgroup of all tasks, and in it the leaf where the next keeper is born.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    Contained, Leaf,
    limits::{all_tasks, limit, limit_in_stat, memory_of_host, pids_default},
    place::{Controller, Place, Version, places},
};
use crate::TaskLimits;

/// What the names of all spawners' cgroups begin with.
const PREFIX: &str = "fleetpool-";
/// Whoever writes its number there is moved; 0 is the writer.
pub(super) const PROCESSES: &str = "cgroup.procs";
/// Which controllers the second version's children have.
const SWITCHES: &str = "cgroup.subtree_control";
/// Another spawner that begins may take a cgroup in the making for one that is over.
const TRIES: usize = 3;
/// Cgroups in each other that are removed at the end: tasks may have made some.
const DEPTH_MAX: usize = 16;

/// The cgroups of one spawner: one a hierarchy, or none.
pub(in crate::spawner) struct Groups {
    all: Vec<Group>,
    limits: TaskLimits,
    leaves: u64,
    reasons: Vec<String>,
}

struct Group {
    place: Place,
    /// Of all tasks.
    folder: PathBuf,
    /// In it, where this process is.
    seat: PathBuf,
    memory_of_all: Option<u64>,
    /// What the second version's cgroup did not have before.
    switched: Vec<Controller>,
    /// As long as it is locked the group is not over. Never unlocked but by its end: a forked child drops its copy.
    _lock: File,
    /// A dead spawner's was not empty yet.
    is_untidy: bool,
}

impl Groups {
    /// Makes what the host allows, and sits down in the first leaf.
    pub(in crate::spawner) fn make(limits: TaskLimits) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}"));
        let found = read("cgroup").and_then(|cgroup| Ok((cgroup, read("mountinfo")?)));
        let places = found.map_or_else(|_| Vec::new(), |(own, mounts)| places(&own, &mounts));
        Self::make_in(places, limits)
    }

    fn make_in(places: Vec<Place>, limits: TaskLimits) -> Self {
        let mut groups = Self {
            all: Vec::new(),
            limits,
            leaves: 1,
            reasons: Vec::new(),
        };
        let mut missing = Controller::ALL.to_vec();
        for place in places {
            missing.retain(|controller| !place.controllers.contains(controller));
            match Group::make(place, limits) {
                Ok(group) => groups.all.push(group),
                Err(reason) => groups.reasons.push(reason),
            }
        }
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|missing| missing.name()).collect();
            let names = names.join(" and ");
            groups
                .reasons
                .push(format!("no cgroup for {names} is to be seen"));
        }
        groups
    }

    /// Holds what is forked from now on to other limits.
    pub(in crate::spawner) fn limit(&mut self, limits: TaskLimits) {
        self.limits = limits;
        for group in &self.all {
            if let Err(reason) = group.bound(&group.seat, limits) {
                eprintln!("fleetpool: {reason}");
            }
        }
    }

    pub(in crate::spawner) fn contained(&self) -> Contained {
        let has = |controller| {
            let mut all = self.all.iter();
            all.any(|group| group.place.controllers.contains(&controller))
        };
        let version = self.all.iter().map(|group| group.place.version as u8 + 1);
        Contained {
            version: version.max().unwrap_or(0),
            pids: has(Controller::Pids).then(|| pids(self.limits)),
            memory: self.limits.memory.filter(|_| has(Controller::Memory)),
            memory_of_all: self.all.iter().find_map(|group| group.memory_of_all),
            reasons: self.reasons.clone(),
        }
    }

    /// Where this process is, and what it forks now.
    pub(in crate::spawner) fn leaf(&self) -> Leaf {
        Leaf(self.all.iter().map(|group| group.seat.clone()).collect())
    }

    /// Leaves its leaf to what was forked there.
    pub(in crate::spawner) fn move_on(&mut self) {
        self.leaves += 1;
        for group in &mut self.all {
            if let Err(reason) = group.move_to(self.leaves, self.limits) {
                // Both are held to one worker's limits then, and do not know whom the kernel has killed.
                eprintln!("fleetpool: two workers share a cgroup: {reason}");
            }
        }
    }

    /// Removes leaves in which nothing is.
    pub(in crate::spawner) fn tidy(&mut self) {
        for group in &mut self.all {
            remove_empty(&group.folder);
            if group.is_untidy {
                group.is_untidy = remove_dead(&group.place.folder);
            }
        }
    }

    /// Goes back to where it began, and removes all. What tasks were allowed to leave behind keeps its leaf, until a spawner begins
    /// here when it is gone.
    pub(in crate::spawner) fn leave(&mut self) {
        self.all.drain(..).for_each(|group| group.leave());
    }
}

impl Group {
    fn make(mut place: Place, limits: TaskLimits) -> Result<Self, String> {
        if place.version == Version::Two {
            let there = fs::read_to_string(place.folder.join("cgroup.controllers"));
            let there = there.unwrap_or_default();
            let has = |name| there.split_whitespace().any(|there| there == name);
            place
                .controllers
                .retain(|controller| has(controller.name()));
            if place.controllers.is_empty() {
                let folder = place.folder.display();
                return Err(format!(
                    "{folder} has no controllers: its unit lacks Delegate=yes"
                ));
            }
        }
        let is_untidy = remove_dead(&place.folder);
        let mut made = Err(io::ErrorKind::NotFound.into());
        for _ in 0..TRIES {
            made = made.or_else(|_: io::Error| claim(&place.folder));
        }
        let why = |error: io::Error| {
            format!(
                "cannot make a cgroup in {}: {error}",
                place.folder.display()
            )
        };
        let (folder, lock) = made.map_err(why)?;
        let mut group = Self {
            seat: folder.join("1"),
            memory_of_all: None,
            switched: Vec::new(),
            _lock: lock,
            is_untidy,
            folder,
            place,
        };
        match group.settle(limits) {
            Ok(()) => Ok(group),
            Err(reason) => {
                group.leave();
                Err(reason)
            }
        }
    }

    /// Sits down, and limits what is there. In this order: the second version gives limits only below cgroups without processes.
    fn settle(&mut self, limits: TaskLimits) -> Result<(), String> {
        create(&self.seat).map_err(|error| cannot("make", &self.seat, &error))?;
        self.say(&self.seat, PROCESSES, "0")?;
        if self.place.version == Version::Two {
            self.switch_on()?;
        }
        if self.place.controllers.contains(&Controller::Memory) {
            let all = all_tasks(
                self.capacity()
                    .ok_or("nobody knows how much memory there is")?,
            );
            let file = Controller::Memory.limit(self.place.version);
            self.say(&self.folder, file, &all.to_string())?;
            self.memory_of_all = Some(all);
        }
        self.bound(&self.seat, limits)
    }

    /// Lets the two levels below the own cgroup have limits.
    fn switch_on(&mut self) -> Result<(), String> {
        let own = self.place.folder.clone();
        let on = fs::read_to_string(own.join(SWITCHES)).unwrap_or_default();
        for controller in self.place.controllers.clone() {
            let switch = format!("+{}", controller.name());
            if !on.split_whitespace().any(|on| on == controller.name()) {
                let busy = |why| {
                    format!(
                        "{why} (limits need a cgroup with no process beside the spawner: run `fleetpool spawner` as a unit of its own)"
                    )
                };
                self.say(&own, SWITCHES, &switch).map_err(busy)?;
                self.switched.push(controller);
            }
            self.say(&self.folder, SWITCHES, &switch)?;
        }
        Ok(())
    }

    /// Memory that this process and all beside it may take, in bytes.
    fn capacity(&self) -> Option<u64> {
        let own = &self.place.folder;
        let above = match self.place.version {
            Version::One => {
                let stat = fs::read_to_string(own.join("memory.stat"));
                stat.ok().and_then(|stat| limit_in_stat(&stat))
            }
            Version::Two => {
                let file = Controller::Memory.limit(Version::Two);
                // The topmost has none.
                let read = |folder: &Path| limit(&fs::read_to_string(folder.join(file)).ok()?);
                own.ancestors().filter_map(read).min()
            }
        };
        memory_of_host().into_iter().chain(above).min()
    }

    /// Limits a leaf.
    fn bound(&self, leaf: &Path, limits: TaskLimits) -> Result<(), String> {
        for controller in &self.place.controllers {
            let limit = match (controller, limits.memory) {
                // The keeper is there too.
                (Controller::Pids, _) => pids(limits).saturating_add(1).to_string(),
                (Controller::Memory, Some(bytes)) => bytes.to_string(),
                (Controller::Memory, None) if self.place.version == Version::One => "-1".to_owned(),
                (Controller::Memory, None) => "max".to_owned(),
            };
            self.say(leaf, controller.limit(self.place.version), &limit)?;
        }
        Ok(())
    }

    fn move_to(&mut self, number: u64, limits: TaskLimits) -> Result<(), String> {
        let seat = self.folder.join(number.to_string());
        create(&seat).map_err(|error| cannot("make", &seat, &error))?;
        self.bound(&seat, limits)?;
        self.say(&seat, PROCESSES, "0")?;
        self.seat = seat;
        Ok(())
    }

    fn leave(self) {
        // Nothing of this can fail but where somebody else has been here. What cannot be removed is found by the next spawner.
        for controller in &self.switched {
            let switch = format!("-{}", controller.name());
            self.say(&self.folder, SWITCHES, &switch).ok();
            self.say(&self.place.folder, SWITCHES, &switch).ok();
        }
        self.say(&self.place.folder, PROCESSES, "0").ok();
        remove_tree(&self.folder, DEPTH_MAX);
    }

    fn say(&self, cgroup: &Path, file: &str, text: &str) -> Result<(), String> {
        let written = write(cgroup, file, text);
        written.map_err(|error| cannot("write", &cgroup.join(file), &error))
    }
}

fn cannot(what: &str, place: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", place.display())
}

/// Processes of a task.
fn pids(limits: TaskLimits) -> u64 {
    limits.pids.unwrap_or_else(pids_default)
}

/// A cgroup of this spawner's own, locked.
fn claim(own: &Path) -> io::Result<(PathBuf, File)> {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let folder = own.join(format!("{PREFIX}{}", random.get(..8).unwrap_or_default()));
    create(&folder)?;
    let lock = File::open(&folder)?;
    hold(&folder, &lock)?;
    Ok((folder, lock))
}

/// Locks a cgroup that is open. Another spawner may have had the lock before, for as long as it takes to remove it.
fn hold(folder: &Path, lock: &File) -> io::Result<()> {
    lock.try_lock()?;
    folder.metadata().map(drop)
}

/// Removes what dead spawners have left. Whether something of it is still in use.
fn remove_dead(own: &Path) -> bool {
    let mut is_left = false;
    for folder in folders(own) {
        let name = folder.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let lock = File::open(&folder);
        if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok()) {
            is_left |= !remove_tree(&folder, DEPTH_MAX);
        }
    }
    is_left
}

fn remove_tree(folder: &Path, depth: usize) -> bool {
    if depth > 0 {
        for below in folders(folder) {
            remove_tree(&below, depth - 1);
        }
    }
    fs::remove_dir(folder).is_ok()
}

/// Removes the cgroups right below one in which nothing is. The kernel refuses to remove others.
pub(super) fn remove_empty(folder: &Path) {
    for below in folders(folder) {
        fs::remove_dir(below).ok();
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

pub(super) fn create(cgroup: &Path) -> io::Result<()> {
    fs::create_dir(cgroup)
}

/// Such a file takes each write for itself; put behind another one, where it is a plain file, every one can be seen.
pub(super) fn write(cgroup: &Path, file: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
    let file = cgroup.join(file);
    let mut file = File::options().append(true).create(true).open(file)?;
    file.write_all(text.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TaskLimits = TaskLimits {
        pids: Some(300),
        memory: None,
    };

    /// A cgroup of the second version as its files have it, in a folder. None was seen in the making of this: see docs/operations.md.
    struct Two(tempfile::TempDir);

    impl Two {
        fn new(controllers: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
            Self(folder)
        }

        fn groups(&self, limits: TaskLimits) -> Groups {
            let place = Place {
                version: Version::Two,
                controllers: Controller::ALL.to_vec(),
                folder: self.0.path().to_owned(),
            };
            Groups::make_in(vec![place], limits)
        }

        fn said(&self, file: &str) -> Option<String> {
            fs::read_to_string(self.0.path().join(file)).ok()
        }
    }

    /// The cgroup of all tasks, by its name.
    fn name(groups: &Groups) -> String {
        let name = groups.all[0].folder.file_name().unwrap();
        name.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_second_version_is_told_to_switch_on_what_is_limited() {
        let two = Two::new("cpu memory pids\n");
        fs::write(two.0.path().join("memory.max"), "1073741824\n").unwrap();
        let mut groups = two.groups(LIMITS);
        let all = name(&groups);
        let said = |file: &str| two.said(&format!("{all}/{file}"));
        assert_eq!(two.said(SWITCHES).as_deref(), Some("+memory+pids"));
        assert_eq!(said(SWITCHES).as_deref(), Some("+memory+pids"));
        assert_eq!(said("memory.max"), Some((768_u64 << 20).to_string()));
        assert_eq!(said("1/cgroup.procs").as_deref(), Some("0"));
        assert_eq!(said("1/pids.max").as_deref(), Some("301"), "and the keeper");
        assert_eq!(said("1/memory.max").as_deref(), Some("max"));
        assert_eq!(groups.leaf(), Leaf(vec![two.0.path().join(&all).join("1")]));
        let contained = groups.contained();
        assert_eq!((contained.version, contained.pids), (2, Some(300)));
        assert_eq!(contained.memory_of_all, Some(768 << 20));
        assert_eq!((contained.memory, contained.reasons), (None, Vec::new()));

        groups.limit(TaskLimits {
            pids: Some(20),
            memory: Some(1 << 20),
        });
        assert_eq!(said("1/pids.max").as_deref(), Some("30121"), "here as well");
        groups.move_on();
        assert_eq!(groups.leaf(), Leaf(vec![two.0.path().join(&all).join("2")]));
        assert_eq!(said("2/cgroup.procs").as_deref(), Some("0"));
        assert_eq!(said("2/pids.max").as_deref(), Some("21"));
        assert_eq!(said("2/memory.max").as_deref(), Some("1048576"));

        groups.leave();
        let off = "+memory+pids-memory-pids";
        assert_eq!(two.said(SWITCHES).as_deref(), Some(off));
        assert_eq!(said(SWITCHES).as_deref(), Some(off));
        assert_eq!(two.said(PROCESSES).as_deref(), Some("0"), "back");
    }

    #[test]
    fn what_was_switched_on_before_stays_on() {
        let two = Two::new("memory pids");
        fs::write(two.0.path().join(SWITCHES), "memory\n").unwrap();
        let mut groups = two.groups(LIMITS);
        let all = name(&groups);
        groups.leave();
        let said = two.said(&format!("{all}/{SWITCHES}"));
        assert_eq!(said.as_deref(), Some("+memory+pids-pids"));
        assert_eq!(two.said(SWITCHES).as_deref(), Some("memory\n+pids-pids"));
    }

    #[test]
    fn only_what_is_there_is_limited() {
        let two = Two::new("cpu pids");
        let groups = two.groups(LIMITS);
        let contained = groups.contained();
        assert_eq!((contained.pids, contained.memory_of_all), (Some(300), None));
        let all = name(&groups);
        assert_eq!(two.said(&format!("{all}/memory.max")), None);
        assert_eq!(two.said(&format!("{all}/1/memory.max")), None);
    }

    #[test]
    fn where_none_can_be_made_the_reason_is_told_and_nothing_is_left() {
        let none = Two::new("");
        let contained = none.groups(LIMITS).contained();
        assert_eq!((contained.version, contained.pids), (0, None));
        assert!(contained.limits().contains("Delegate=yes"), "{contained:?}");

        // As where the kernel finds other processes there.
        let busy = Two::new("memory pids");
        fs::create_dir(busy.0.path().join(SWITCHES)).unwrap();
        let mut groups = busy.groups(LIMITS);
        let contained = groups.contained();
        assert_eq!(contained.version, 0);
        assert!(
            contained.limits().contains("fleetpool spawner"),
            "{contained:?}"
        );
        assert_eq!(busy.said(PROCESSES).as_deref(), Some("0"), "back");
        assert_eq!(groups.leaf(), Leaf::default());
        groups.move_on();
        groups.leave();

        let gone = Place {
            version: Version::One,
            controllers: vec![Controller::Pids],
            folder: none.0.path().join("gone"),
        };
        let contained = Groups::make_in(vec![gone], LIMITS).contained();
        let limits = contained.limits();
        assert!(limits.contains("cannot make a cgroup in"), "{limits}");
        assert!(limits.contains("no cgroup for memory"), "{limits}");
    }

    #[test]
    fn what_another_has_removed_before_it_was_locked_is_not_held() {
        let two = Two::new("memory pids");
        let folder = two.0.path().join("fleetpool-1");
        create(&folder).unwrap();
        let lock = File::open(&folder).unwrap();
        assert!(!remove_dead(two.0.path()));
        let held = hold(&folder, &lock).map_err(|error| error.kind());
        assert_eq!(held, Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn what_dead_spawners_have_left_is_removed_and_what_living_ones_have_is_not() {
        let two = Two::new("memory pids");
        let cgroup = |name: &str| two.0.path().join(name);
        let [dead, living, others] = ["fleetpool-1", "fleetpool-2", "theirs"].map(cgroup);
        for folder in [&dead.join("1/nested"), &living.join("1"), &others] {
            fs::create_dir_all(folder).unwrap();
        }
        let lock = File::open(&living).unwrap();
        lock.try_lock().unwrap();
        assert!(!remove_dead(two.0.path()));
        assert!(!dead.exists() && living.join("1").exists() && others.exists());
        drop(lock);
        // As a process would.
        fs::write(living.join("1/held"), "").unwrap();
        assert!(remove_dead(two.0.path()), "it is to be looked for again");
        fs::remove_file(living.join("1/held")).unwrap();
        assert!(!remove_dead(two.0.path()));
        assert!(!living.exists());
    }
}
