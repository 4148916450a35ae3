//! Join tokens: short-lived invitations, each good for a number of uses.
//!
//! Only a hash of the secret is kept. A use is counted, on disk, before the certificate that it pays for is made: a
//! crash in between loses a use, never gives one twice.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleetpool_net::token::Token;
use fleetpool_proto::{Role, view::TokenView};
use serde::{Deserialize, Serialize};

use super::store::{self, StoreError};

/// Longest life of a token.
pub const TOKEN_TTL_MAX: Duration = Duration::from_hours(30 * 24);
/// Most tokens that can be good at a time; more are refused.
pub const TOKENS_MAX: usize = 10_000;

/// What a token gives to those who show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The role.
    pub role: Role,
    /// Labels of the host, whatever its agent says.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
}

impl Invitation {
    /// To be that, without labels.
    #[must_use]
    pub fn to(role: Role) -> Self {
        let labels = Vec::new();
        Self { role, labels }
    }
}

/// Why a token is not made, or not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// One answer for every token that is not good, so that nobody learns which ones exist.
    #[error(
        "the join token is not good: it is mistyped, used up, expired or revoked; ask an admin for a new one"
    )]
    NotGood,
    /// It is for another role.
    #[error("the join token is for the role {granted}, not {asked}")]
    OtherRole {
        /// What it gives.
        granted: Role,
        /// What was asked for.
        asked: Role,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    /// [`Token::secret_hash`], in hexadecimal.
    secret_hash: String,
    invitation: Invitation,
    uses_left: u32,
    /// In seconds since 1970.
    expires_s: u64,
}

/// The tokens' file, and what it says.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    kept: Mutex<BTreeMap<String, Kept>>,
}

impl Tokens {
    /// The tokens of that directory.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("tokens.json");
        let kept = Mutex::new(store::load(&path)?);
        Ok(Self { path, kept })
    }

    /// Makes `token`, which nobody has seen yet, good.
    ///
    /// # Errors
    /// When what is asked for makes no sense, or cannot be written.
    pub fn create(
        &self,
        token: &Token,
        invitation: Invitation,
        uses: u32,
        ttl: Duration,
        now_s: u64,
    ) -> Result<(), TokenError> {
        check(&invitation, uses, ttl)?;
        let kept = Kept {
            secret_hash: hash(&token.secret).to_hex().to_string(),
            invitation,
            uses_left: uses,
            expires_s: now_s + ttl.as_secs(),
        };
        self.change(|all| {
            all.retain(|_, kept| kept.is_good(now_s));
            if all.len() >= TOKENS_MAX {
                return Err(TokenError::Invalid(format!(
                    "there are {TOKENS_MAX} good tokens already: revoke some with `fleetpool token revoke`"
                )));
            }
            all.insert(token.id.clone(), kept);
            Ok(())
        })
    }

    /// Uses a token once.
    ///
    /// # Errors
    /// When it is not good or is for another role.
    pub fn take(
        &self,
        id: &str,
        secret: &str,
        role: Role,
        now_s: u64,
    ) -> Result<Invitation, TokenError> {
        let shown = hash(secret);
        self.change(|all| {
            let kept = all.get_mut(id).filter(|kept| kept.is_good(now_s));
            // `blake3::Hash` compares in constant time; an unknown id costs the same comparison.
            let expected = kept
                .as_ref()
                .map_or(blake3::Hash::from([0; 32]), |kept| kept.hash());
            let right = shown == expected;
            let kept = kept.filter(|_| right).ok_or(TokenError::NotGood)?;
            if kept.invitation.role != role {
                let granted = kept.invitation.role;
                return Err(TokenError::OtherRole {
                    granted,
                    asked: role,
                });
            }
            kept.uses_left -= 1;
            Ok(kept.invitation.clone())
        })
    }

    /// Makes a token useless; tells whether it was good.
    ///
    /// # Errors
    /// When that cannot be written; then it is as good as before.
    pub fn revoke(&self, id: &str, now_s: u64) -> Result<bool, TokenError> {
        self.change(|all| Ok(all.remove(id).is_some_and(|kept| kept.is_good(now_s))))
    }

    /// The tokens that are good, by id.
    #[must_use]
    pub fn list(&self, now_s: u64) -> Vec<TokenView> {
        let all = self.lock();
        let good = all.iter().filter(|(_, kept)| kept.is_good(now_s));
        good.map(|(id, kept)| TokenView {
            id: id.clone(),
            role: kept.invitation.role.to_string(),
            uses_left: kept.uses_left,
            expires_in_s: kept.expires_s - now_s,
            labels: kept.invitation.labels.clone(),
        })
        .collect()
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, Kept>) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let mut kept = self.lock();
        let mut changed = kept.clone();
        let result = change(&mut changed)?;
        store::save(&self.path, &changed)?;
        *kept = changed;
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        // A panic cannot leave the map half changed: it is replaced whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_good(&self, now_s: u64) -> bool {
        self.uses_left > 0 && now_s < self.expires_s
    }

    fn hash(&self) -> blake3::Hash {
        blake3::Hash::from_hex(&self.secret_hash).unwrap_or(blake3::Hash::from([0; 32]))
    }
}

fn hash(secret: &str) -> blake3::Hash {
    blake3::Hash::from(Token::secret_hash(secret))
}

fn check(invitation: &Invitation, uses: u32, ttl: Duration) -> Result<(), TokenError> {
    let invalid = |reason: String| Err(TokenError::Invalid(reason));
    if uses == 0 {
        return invalid("a token without uses is good for nothing: give it at least 1".to_owned());
    }
    if ttl.is_zero() || ttl > TOKEN_TTL_MAX {
        let days = TOKEN_TTL_MAX.as_secs() / 86_400;
        return invalid(format!("a token lives between a second and {days} days"));
    }
    match invitation.role {
        Role::Coordinator => {
            invalid("nobody joins as a coordinator: `fleetpool init` makes its identity".to_owned())
        }
        Role::User | Role::Admin if !invitation.labels.is_empty() => {
            invalid("labels belong to hosts: only tokens for agents can have them".to_owned())
        }
        Role::Agent | Role::User | Role::Admin => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use fleetpool_net::token::CaHash;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = Tokens::open(dir.path()).expect("tokens");
        (dir, tokens)
    }

    fn made(tokens: &Tokens, uses: u32) -> Token {
        let token = Token::new(CaHash::of(b"ca"));
        tokens
            .create(&token, agents(), uses, HOUR, 100)
            .expect("made");
        token
    }

    fn agents() -> Invitation {
        Invitation {
            role: Role::Agent,
            labels: vec![("zone".to_owned(), "a".to_owned())],
        }
    }

    #[test]
    fn a_token_is_good_for_its_uses_and_its_time() {
        let (_dir, tokens) = tokens();
        let token = made(&tokens, 2);
        let take = |secret: &str, now| tokens.take(&token.id, secret, Role::Agent, now);
        assert!(matches!(take("another", 100), Err(TokenError::NotGood)));
        assert!(matches!(
            take(&token.secret, 3_700),
            Err(TokenError::NotGood)
        ));
        assert_eq!(take(&token.secret, 100).ok(), Some(agents()));
        assert_eq!(take(&token.secret, 3_699).ok(), Some(agents()));
        assert!(matches!(take(&token.secret, 100), Err(TokenError::NotGood)));
    }

    #[test]
    fn one_use_shown_a_thousand_times_at_once_is_taken_once() {
        let (_dir, tokens) = tokens();
        let token = made(&tokens, 1);
        let take = || {
            tokens
                .take(&token.id, &token.secret, Role::Agent, 100)
                .is_ok()
        };
        let taken: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..10)
                .map(|_| scope.spawn(|| (0..100).filter(|_| take()).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(taken, 1);
    }

    #[test]
    fn a_token_of_another_role_is_not_used_up() {
        let (_dir, tokens) = tokens();
        let token = made(&tokens, 1);
        let error = tokens
            .take(&token.id, &token.secret, Role::Admin, 100)
            .expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the join token is for the role agent, not admin"
        );
        assert!(
            tokens
                .take(&token.id, &token.secret, Role::Agent, 100)
                .is_ok()
        );
    }

    #[test]
    fn the_file_keeps_uses_and_no_secret() {
        let (dir, tokens) = tokens();
        let token = made(&tokens, 2);
        tokens
            .take(&token.id, &token.secret, Role::Agent, 100)
            .expect("good");
        let reopened = Tokens::open(dir.path()).expect("tokens");
        let left: Vec<_> = reopened
            .list(100)
            .iter()
            .map(|view| view.uses_left)
            .collect();
        assert_eq!(left, [1]);
        let file = std::fs::read_to_string(dir.path().join("tokens.json")).expect("a file");
        assert!(!file.contains(&token.secret), "{file}");
    }

    #[test]
    fn a_revoked_token_is_useless() {
        let (_dir, tokens) = tokens();
        let token = made(&tokens, 2);
        assert_eq!(tokens.revoke(&token.id, 100).ok(), Some(true));
        assert_eq!(tokens.revoke(&token.id, 100).ok(), Some(false));
        let taken = tokens.take(&token.id, &token.secret, Role::Agent, 100);
        assert!(matches!(taken, Err(TokenError::NotGood)));
    }

    #[test]
    fn tokens_that_make_no_sense_are_not_made() {
        let (_dir, tokens) = tokens();
        let with_labels = |role| Invitation { role, ..agents() };
        let cases = [
            (agents(), 0, HOUR),
            (agents(), 1, Duration::ZERO),
            (agents(), 1, TOKEN_TTL_MAX + HOUR),
            (with_labels(Role::Coordinator), 1, HOUR),
            (with_labels(Role::Admin), 1, HOUR),
        ];
        for (invitation, uses, ttl) in cases {
            let token = Token::new(CaHash::of(b"ca"));
            let made = tokens.create(&token, invitation.clone(), uses, ttl, 100);
            assert!(
                matches!(made, Err(TokenError::Invalid(_))),
                "{invitation:?} {uses} {ttl:?}"
            );
        }
    }
}
