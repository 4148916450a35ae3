//! The variables that a slot's processes get.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use fleetpool_proto::{AttemptId, worker::WORKER_FD_ENV};

use super::message::Place;

/// Variables that libraries size their thread pools by. A slot is one task's share of the host, and a task that
/// starts a thread a processor takes its neighbours' share too.
const THREADS: [&str; 7] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// How a Python worker's allocator is to treat large blocks, as its C library is told at its start. To touch the pages of a
/// fresh block takes several times as long as to copy one, so what was freed is kept for the next, up to 64 MiB, and taken
/// in huge pages.
const ALLOCATOR_ENV: &str = "GLIBC_TUNABLES";
const ALLOCATOR_OPTIONS: &str = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=67108864";
/// Where commands are looked for when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// A block of variables as the kernel takes it. The last two tell the task.
#[derive(Debug)]
pub(crate) struct Environment {
    block: Vec<CString>,
    path: OsString,
}

impl Environment {
    /// `inherited`, then thread counts that nobody set, then the `changes` in order, then fleetpool's own.
    ///
    /// # Errors
    /// When a variable cannot be set: why, for people.
    pub(crate) fn new<'a>(
        inherited: impl IntoIterator<Item = (OsString, OsString)>,
        place: &Place,
        changes: impl IntoIterator<Item = &'a (String, Option<String>)>,
    ) -> Result<Self, String> {
        let mut vars: BTreeMap<OsString, OsString> = inherited.into_iter().collect();
        for name in THREADS {
            let threads = || place.threads.max(1).to_string().into();
            vars.entry(name.into()).or_insert_with(threads);
        }
        for (name, value) in changes {
            check(name, value.as_deref().unwrap_or_default())?;
            match value {
                Some(value) => drop(vars.insert(name.into(), value.into())),
                None => drop(vars.remove(OsStr::new(name))),
            }
        }
        vars.remove(OsStr::new(WORKER_FD_ENV));
        vars.insert("FLEETPOOL_HOST".into(), place.host.clone().into());
        vars.insert("FLEETPOOL_SLOT".into(), place.slot.to_string().into());
        vars.insert("FLEETPOOL_POOL".into(), place.pool.to_string().into());
        let path = vars.get(OsStr::new("PATH")).cloned();
        let mut block: Vec<_> = vars
            .into_iter()
            .filter_map(|(name, value)| pair(&name, &value))
            .collect();
        block.extend([CString::default(), CString::default()]);
        Ok(Self {
            block,
            path: path.unwrap_or_else(|| PATH_DEFAULT.into()),
        })
    }

    /// The block for one task.
    pub(crate) fn of_task(&mut self, attempt: AttemptId) -> &[CString] {
        let index = attempt.task.index.to_string();
        let number = attempt.attempt.0.to_string();
        self.last_two([("FLEETPOOL_TASK", &index), ("FLEETPOOL_ATTEMPT", &number)])
    }

    /// The block for a worker, who finds its socket at descriptor `fd`.
    pub(crate) fn of_worker(&mut self, fd: i32) -> &[CString] {
        self.of_one(WORKER_FD_ENV, &fd.to_string())
    }

    /// The block for a template, who finds its descriptors there, and behind them the names of what it is to remove.
    pub(crate) fn of_template(&mut self, descriptors: &str) -> &[CString] {
        let name = format!("{ALLOCATOR_ENV}=");
        let is_it = |var: &CString| var.to_bytes().starts_with(name.as_bytes());
        if self.block.iter().any(is_it) {
            // Somebody knows better.
            return self.of_one("FLEETPOOL_TEMPLATE", descriptors);
        }
        let descriptors = format!("{descriptors} {ALLOCATOR_ENV}");
        self.last_two([
            ("FLEETPOOL_TEMPLATE", &descriptors),
            (ALLOCATOR_ENV, ALLOCATOR_OPTIONS),
        ])
    }

    /// Where commands are looked for.
    pub(crate) fn path(&self) -> &OsStr {
        &self.path
    }

    fn of_one(&mut self, name: &str, value: &str) -> &[CString] {
        self.block.truncate(self.block.len() - 2);
        self.block.extend(pair(OsStr::new(name), OsStr::new(value)));
        &self.block
    }

    /// In the last two places, which are there for it.
    fn last_two(&mut self, vars: [(&str, &str); 2]) -> &[CString] {
        let first = self.block.len() - vars.len();
        for (place, (name, value)) in self.block[first..].iter_mut().zip(vars) {
            *place = pair(OsStr::new(name), OsStr::new(value)).unwrap_or_default();
        }
        &self.block
    }
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let sound = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    sound.then_some(()).ok_or_else(|| {
        format!("cannot set the variable {name:?}: names have no `=`, and neither part a NUL byte")
    })
}

fn pair(name: &OsStr, value: &OsStr) -> Option<CString> {
    let joined = [name.as_bytes(), b"=", value.as_bytes()].concat();
    CString::new(OsString::from_vec(joined).into_vec()).ok()
}

#[cfg(test)]
mod tests {
    use fleetpool_proto::{Attempt, PoolId, TaskId};

    use super::*;

    fn place() -> Place {
        Place {
            host: "web1".into(),
            slot: 3,
            pool: 7,
            threads: 2,
            ..Place::default()
        }
    }

    fn block(inherited: &[(&str, &str)], changes: &[(String, Option<String>)]) -> Vec<String> {
        let inherited = inherited
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let mut environment = Environment::new(inherited, &place(), changes).unwrap();
        let attempt = AttemptId {
            task: TaskId::new(PoolId(7), 41),
            attempt: Attempt(2),
        };
        let block = environment.of_task(attempt);
        block
            .iter()
            .map(|var| var.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_template_is_told_how_to_allocate_unless_somebody_has_said() {
        let told = |inherited: &[(&str, &str)]| {
            let inherited = inherited.iter().map(|(n, v)| (n.into(), v.into()));
            let mut environment = Environment::new(inherited, &place(), &[]).unwrap();
            let block = environment.of_template("3 4 5 6");
            let of = |name: &str| {
                block
                    .iter()
                    .filter_map(|var| Some(var.to_str().ok()?.strip_prefix(name)?.to_owned()))
                    .collect::<Vec<_>>()
            };
            (of("FLEETPOOL_TEMPLATE="), of("GLIBC_TUNABLES="))
        };
        let (template, allocator) = told(&[]);
        assert_eq!(
            (template, allocator.len()),
            (vec!["3 4 5 6 GLIBC_TUNABLES".into()], 1)
        );
        let (template, allocator) = told(&[("GLIBC_TUNABLES", "glibc.malloc.check=3")]);
        assert_eq!(
            (template, allocator),
            (vec!["3 4 5 6".into()], vec!["glibc.malloc.check=3".into()])
        );
    }

    #[test]
    fn what_the_user_says_wins_over_the_thread_caps() {
        let changes = [
            ("MKL_NUM_THREADS".to_owned(), Some("5".to_owned())),
            ("RAYON_NUM_THREADS".to_owned(), None),
        ];
        let vars = block(&[("OMP_NUM_THREADS", "9")], &changes);
        assert!(vars.contains(&"OMP_NUM_THREADS=9".to_owned()));
        assert!(vars.contains(&"MKL_NUM_THREADS=5".to_owned()));
        assert!(vars.contains(&"NUMBA_NUM_THREADS=2".to_owned()));
        assert!(!vars.iter().any(|var| var.starts_with("RAYON_")));
    }

    #[test]
    fn tasks_are_told_where_they_are() {
        let vars = block(&[(WORKER_FD_ENV, "3")], &[]);
        for var in [
            "FLEETPOOL_HOST=web1",
            "FLEETPOOL_SLOT=3",
            "FLEETPOOL_POOL=7",
            "FLEETPOOL_TASK=41",
            "FLEETPOOL_ATTEMPT=2",
        ] {
            assert!(
                vars.contains(&var.to_owned()),
                "{var} is missing in {vars:?}"
            );
        }
        assert!(!vars.iter().any(|var| var.starts_with(WORKER_FD_ENV)));
    }

    #[test]
    fn impossible_variables_are_refused() {
        for name in ["", "A=B", "A\0"] {
            let changes = [(name.to_owned(), Some("x".to_owned()))];
            assert!(
                Environment::new([], &place(), &changes).is_err(),
                "{name:?}"
            );
        }
    }
}
