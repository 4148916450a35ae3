//! Join tokens: `fp1.<CA hash>.<id>.<secret>`.
//!
//! The hash lets a joiner know its cluster before it says the secret; the id lets the coordinator find the token
//! of which it keeps only the hash.

use std::{fmt, str::FromStr};

/// The version of the form.
const PREFIX: &str = "fp1";

/// What pins a cluster: BLAKE3 of its CA's certificate, the first half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaHash([u8; 16]);

/// A join token, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster that it is for.
    pub ca_hash: CaHash,
    /// What it is called in lists: not secret.
    pub id: String,
    /// What whoever joins must know.
    pub secret: String,
}

/// Why a word is not a token. Never shows the word: it may be half a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: {0}; it looks like fp1.<CA hash>.<id>.<secret>, as `fleetpool token create` printed it"
)]
pub struct TokenError(&'static str);

impl CaHash {
    /// Of a CA's certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let hash = blake3::hash(certificate);
        Self(hash.as_bytes()[..16].try_into().expect("16 of 32 bytes"))
    }
}

impl Token {
    /// A new token for the cluster of that CA.
    #[must_use]
    pub fn new(ca_hash: CaHash) -> Self {
        Self {
            ca_hash,
            id: hex(&random::<4>()),
            secret: hex(&random::<16>()),
        }
    }

    /// What the coordinator keeps in place of the secret.
    #[must_use]
    pub fn secret_hash(secret: &str) -> [u8; 32] {
        // The secret has 128 random bits: it needs no salt and no slow hash. The derivation keeps the hash useless
        // wherever else BLAKE3 of the same text might be seen.
        blake3::derive_key("fleetpool 2026 join token secret", secret.as_bytes())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(word: &str) -> Result<Self, TokenError> {
        let mut parts = word.trim().split('.');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError("it does not begin with fp1"));
        }
        let (Some(ca), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError("it has not four parts"));
        };
        Ok(Self {
            ca_hash: CaHash(parse_hex(ca).ok_or(TokenError("its CA hash is damaged"))?),
            id: checked(id, 8).ok_or(TokenError("its id is damaged"))?,
            secret: checked(secret, 32).ok_or(TokenError("its secret is damaged"))?,
        })
    }
}

impl fmt::Display for Token {
    /// The whole token, secret included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ca = hex(&self.ca_hash.0);
        write!(f, "{PREFIX}.{ca}.{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

fn checked(text: &str, len: usize) -> Option<String> {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == len && text.bytes().all(hex)).then(|| text.to_owned())
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    checked(text, 2 * N)?;
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_own_text_and_hide_their_secret() {
        let token = Token::new(CaHash::of(b"ca"));
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!(" {token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn damaged_tokens_are_refused_without_being_shown() {
        let good = Token::new(CaHash::of(b"ca")).to_string();
        for bad in [
            "",
            "fp2.00.00.00",
            "fp1",
            &good[..good.len() - 1],
            &format!("{good}.x"),
            &good.replace("fp1.", "fp1.é"),
            &good.to_uppercase(),
        ] {
            let error = bad.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains("fleetpool token create"), "{error}");
            assert!(bad.len() < 20 || !error.contains(bad), "{error}");
        }
    }
}
