//! Keys: who may ask, and who may change spaces.

use crate::error::{ApiError, Code};
use axum::http::{HeaderMap, Method, header};
use subtle::ConstantTimeEq;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Ranking, scoring, encoding, and looking at spaces.
    Read,
    /// Making and deleting spaces too.
    Write,
}

/// The keys that the service knows, as digests of one length.
#[derive(Clone, Default)]
pub struct Keys {
    digests: Vec<([u8; 32], Right)>,
}

/// Least length of a key: below it, guessing is no fancy.
const LEAST: usize = 16;

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} keys", self.digests.len())
    }
}

impl Keys {
    /// Reads keys: one a line, `read` behind those that may not change spaces; `#` begins a comment.
    ///
    /// # Errors
    /// What is wrong with which line; the key itself is never repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut digests = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (key, right) = match line.split_whitespace().collect::<Vec<_>>()[..] {
                [key] => (key, Right::Write),
                [key, "read"] => (key, Right::Read),
                _ => return Err(format!("line {}: holds more than a key and `read`", index + 1)),
            };
            if key.len() < LEAST {
                return Err(format!("line {}: the key is shorter than {LEAST} characters", index + 1));
            }
            digests.push((*blake3::hash(key.as_bytes()).as_bytes(), right));
        }
        Ok(Self { digests })
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there is no key, so that everybody may do everything.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// What a key allows. Every key is compared whole, whatever the answer.
    fn right(&self, key: &[u8]) -> Option<Right> {
        let digest = blake3::hash(key);
        let mut found = None;
        for (known, right) in &self.digests {
            if bool::from(known.ct_eq(digest.as_bytes())) {
                found = Some(*right);
            }
        }
        found
    }

    /// Whether a request with these headers may go on: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] or [`Code::Forbidden`].
    pub(crate) fn admit(&self, headers: &HeaderMap, (method, path): (&Method, &str)) -> Result<(), ApiError> {
        if self.is_empty() {
            return Ok(());
        }
        let bearer = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let bearer = bearer.and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii())
        });
        let key = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()));
        let Some(key) = key else {
            return Err(ApiError::new(
                Code::Unauthorized,
                "there is no key",
                "send it as `Authorization: Bearer KEY`",
            ));
        };
        let changes = path.starts_with("/v1/spaces") && !matches!(*method, Method::GET | Method::HEAD);
        match self.right(key) {
            None => {
                Err(ApiError::new(Code::Unauthorized, "the key is not known", "ask whoever runs the service"))
            }
            Some(Right::Read) if changes => Err(ApiError::new(
                Code::Forbidden,
                "the key may not change spaces",
                "use a key without `read` behind it",
            )),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap_or(header::ACCEPT), HeaderValue::from_static(value))])
    }

    #[test]
    fn keys_open_what_they_may() {
        let keys =
            Keys::parse("# ours\nsecret-secret-secret\nreader-reader-reader read\n").unwrap_or_default();
        assert_eq!((keys.len(), format!("{keys:?}")), (2, "2 keys".to_string()));
        let rank = (&Method::POST, "/v1/rank");
        let put = (&Method::PUT, "/v1/spaces/a");
        let code = |headers: HeaderMap, request| keys.admit(&headers, request).err().map(|error| error.code);
        assert_eq!(code(HeaderMap::new(), rank), Some(Code::Unauthorized));
        for (name, value) in [
            ("authorization", "Bearer secret-secret-secret"),
            ("authorization", "bearer secret-secret-secret"),
            ("x-api-key", "secret-secret-secret"),
        ] {
            assert_eq!(code(headers(name, value), put), None, "{value}");
        }
        let reader = || headers("authorization", "Bearer reader-reader-reader");
        assert_eq!(code(reader(), rank), None);
        assert_eq!(code(reader(), (&Method::GET, "/v1/spaces")), None);
        assert_eq!(code(reader(), put), Some(Code::Forbidden));
        for wrong in ["Bearer secret-secret-secre", "Bearer ", "Basic secret-secret-secret", "B"] {
            assert_eq!(code(headers("authorization", wrong), rank), Some(Code::Unauthorized), "{wrong}");
        }
    }

    #[test]
    fn unsound_keys_are_refused_without_showing_them() {
        let error = Keys::parse("secret-secret-secret\nshort\n").unwrap_err();
        assert!(error.contains("line 2") && !error.contains("short\n"));
        assert!(Keys::parse("secret-secret-secret write all").unwrap_err().contains("line 1"));
        assert!(Keys::parse("").is_ok_and(|keys| keys.is_empty()));
    }
}
