//! Bodies: read whole, within a limit and a time, then parsed with the path of what is wrong.

use crate::config::Limits;
use crate::error::{ApiError, Code};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Bytes of a body, and the time in which it must have come.
#[derive(Clone, Copy)]
pub(crate) struct Allowance {
    bytes: usize,
    time: Duration,
}

impl Allowance {
    /// For questions.
    pub(crate) fn question(limits: &Limits) -> Self {
        Self { bytes: limits.body_bytes, time: Limits::duration(limits.body_ms) }
    }

    /// For uploads of targets.
    pub(crate) fn upload(limits: &Limits) -> Self {
        Self { bytes: limits.upload_bytes, time: Limits::duration(limits.upload_ms) }
    }

    /// Reads a body whole. It is decompressed already: the limit is on what it becomes.
    pub(crate) async fn read(self, body: Body) -> Result<Bytes, ApiError> {
        let whole = Limited::new(body, self.bytes).collect();
        match tokio::time::timeout(self.time, whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if is_too_long(&*error) => Err(ApiError::new(
                Code::TooLarge,
                format!("the body is larger than {} bytes", self.bytes),
                "send fewer texts at a time",
            )),
            Ok(Err(error)) => Err(ApiError::new(
                Code::InvalidBody,
                format!("the body cannot be read: {error}"),
                "send it whole, with the encoding that its header names",
            )),
            Err(_) => Err(ApiError::new(
                Code::BodyTimeout,
                format!("the body did not come within {} ms", self.time.as_millis()),
                "send it at once",
            )),
        }
    }
}

/// Whether the limit is at the root of an error: the body that it stopped may have wrapped it.
fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Parses JSON.
pub(crate) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !(kind == "application/json" || kind.ends_with("+json")) {
        return Err(ApiError::new(
            Code::UnsupportedType,
            match kind.is_empty() {
                true => "the body has no content type".to_string(),
                false => {
                    format!("the body has the content type `{}`", kind.chars().take(80).collect::<String>())
                }
            },
            "send JSON with `Content-Type: application/json`",
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("`{path}`: ") };
        ApiError::new(
            Code::InvalidBody,
            format!("{place}{}", error.inner()),
            "/openapi.json describes every field",
        )
    })?;
    reader.end().map_err(|error| {
        ApiError::new(Code::InvalidBody, format!("behind the JSON: {error}"), "send one object alone")
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Question {
        #[allow(dead_code, reason = "parsed, not used")]
        texts: Vec<String>,
    }

    fn parse(kind: &'static str, body: &str) -> Result<Question, ApiError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        json(&headers, body.as_bytes())
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(parse("application/json; charset=utf-8", r#"{"texts":["a"]}"#).is_ok());
        assert!(parse("application/vnd.x+json", r#"{"texts":["a"]}"#).is_ok());
        for (body, problem) in [
            (r#"{"texts":["a", 1]}"#, "`texts[1]`: invalid type: integer `1`"),
            (r#"{"texts":NaN}"#, "expected value"),
            (r#"{"texts":["\ud800"]}"#, "hex escape"),
            (r#"{"texts":["a"]} x"#, "behind the JSON"),
            ("", "EOF"),
        ] {
            let error = parse("application/json", body).unwrap_err();
            assert!(error.code == Code::InvalidBody && error.message.contains(problem), "{body}: {error}");
        }
        assert_eq!(parse("text/plain", "{}").unwrap_err().code, Code::UnsupportedType);
        assert_eq!(parse("", "{}").unwrap_err().code, Code::UnsupportedType);
    }

    #[tokio::test]
    async fn bodies_have_a_limit_and_a_time() {
        let allowance = Allowance { bytes: 4, time: Duration::from_millis(20) };
        assert_eq!(&allowance.read(Body::from("1234")).await.unwrap()[..], b"1234");
        assert_eq!(allowance.read(Body::from("12345")).await.unwrap_err().code, Code::TooLarge);
        assert_eq!(allowance.read(Body::new(Never)).await.unwrap_err().code, Code::BodyTimeout);
    }

    /// A body of which nothing comes.
    struct Never;

    impl hyper::body::Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
}
