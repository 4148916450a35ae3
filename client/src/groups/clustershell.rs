//! Groups as ClusterShell's configuration defines them: `groups.conf` and what it names.

use std::{error::Error, sync::Arc, sync::mpsc, thread, time::Duration};

use nodeset::{IdRangeList, NodeSet, Resolver};

use super::Answer;

/// Where the configuration is looked for, as people write it.
const PLACES: &str = "/etc/clustershell, ~/.local/etc/clustershell or ~/.config/clustershell";

/// ClusterShell's groups, where it is configured.
pub(super) struct ClusterShell {
    resolver: Option<Arc<Resolver>>,
}

impl ClusterShell {
    /// Reads its configuration.
    ///
    /// # Errors
    /// When there is one that makes no sense.
    pub(super) fn load() -> Result<Self, String> {
        let resolver = Resolver::from_config().map_err(|error| {
            format!(
                "ClusterShell's configuration cannot be read: {}: mend it, it is in {PLACES}",
                causes(&error)
            )
        })?;
        let is_empty = resolver.sources().next().is_none();
        let resolver = (!is_empty).then(|| Arc::new(resolver));
        Ok(Self { resolver })
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { resolver: None }
    }

    /// Asks for the hosts of `group`, or of a group of a source, `source:group`.
    ///
    /// # Errors
    /// When that takes longer than `time_max`.
    pub(super) fn ask(&self, group: &str, time_max: Duration) -> Result<Answer, String> {
        let unknown =
            |why: &str| Answer::Unknown(format!("in ClusterShell's configuration ({why})"));
        let Some(resolver) = &self.resolver else {
            return Ok(unknown(&format!("there is none in {PLACES}")));
        };
        if !is_harmless(group) {
            return Ok(unknown(
                "it was not asked: the name would become part of a shell's command",
            ));
        }
        let (sender, answer) = mpsc::sync_channel(1);
        let (resolver, name) = (Arc::clone(resolver), group.to_owned());
        // It runs commands and knows no time limit.
        thread::spawn(move || {
            let _ = sender.send(resolve(&resolver, &name));
        });
        match answer.recv_timeout(time_max) {
            Ok(Ok(nodes)) if nodes.is_empty() => Ok(unknown("it has no such group")),
            Ok(Ok(nodes)) => Ok(Answer::Hosts(nodes)),
            Ok(Err(why)) => Ok(unknown(&why)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(unknown("it cannot be resolved")),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(format!(
                "ClusterShell's command for group `{group}` takes longer than {} s: make it quicker",
                time_max.as_secs()
            )),
        }
    }
}

fn resolve(resolver: &Resolver, group: &str) -> Result<String, String> {
    let (source, group) = match group.split_once(':') {
        Some((source, group)) => (Some(source), group),
        None => (None, group),
    };
    let nodes: NodeSet<IdRangeList> = resolver
        .resolve(source, group)
        .map_err(|error| causes(&error))?;
    Ok(nodes.to_string())
}

/// Whether the name can stand in a command of ClusterShell's, which is text that the name is put into.
fn is_harmless(group: &str) -> bool {
    let harmless = |c: char| c.is_alphanumeric() || "-_.+/:".contains(c);
    !group.starts_with('-') && group.chars().all(harmless)
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
