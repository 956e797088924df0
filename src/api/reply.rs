//! Answers: JSON, streams, and problems (RFC 9457).

use crate::{manager::Refusal, wire};
use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body as HttpBody, Frame, SizeHint},
    header::{CONTENT_TYPE, HeaderValue},
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// What is sent: all at once, or as it comes.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Bytes),
    /// These bytes and then what comes, until the sender is dropped; an error breaks the connection off, so that
    /// the client can tell.
    Stream(Bytes, mpsc::Receiver<io::Result<Bytes>>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Body::Whole(bytes) | Body::Stream(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Body::Whole(_) => Poll::Ready(None),
            Body::Stream(_, chunks) => chunks.poll_recv(cx).map(|c| c.map(|c| c.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(..) => SizeHint::default(),
        }
    }
}

/// Why a request gets no other answer.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Box<wire::Problem>);

impl Refused {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Refused {
        Refused(Box::new(wire::Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: detail.into(),
            ..wire::Problem::default()
        }))
    }

    /// As `application/problem+json`.
    pub(super) fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_as(status, "application/problem+json", &*self.0)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Unknown(name) => {
                Refused::new(StatusCode::NOT_FOUND, format!("no service is named `{name}`"))
            }
            Refusal::Configuration(diagnostics) => {
                let errors = match diagnostics.len() {
                    1 => "it has an error".into(),
                    n => format!("it has {n} errors"),
                };
                let detail = format!("cannot take the configuration over: {errors}; nothing was changed");
                let mut refused = Refused::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
                refused.0.diagnostics = diagnostics;
                refused
            }
            Refusal::ShuttingDown => Refused::new(StatusCode::SERVICE_UNAVAILABLE, "keepd is shutting down"),
            Refusal::Unavailable(why) => Refused::new(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }
}

/// `value` with this status.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    json_as(status, "application/json", value)
}

fn json_as(status: StatusCode, kind: &'static str, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => whole(status, kind, text.into()),
        // The types of the API are plain data; only a bug could bring this about.
        Err(e) => whole(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", e.to_string().into()),
    }
}

/// These bytes with this status and type.
pub(super) fn whole(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    respond(status, kind, Body::Whole(bytes))
}

/// 200 with a stream of this type: `first`, then `rest`.
pub(super) fn stream(
    kind: &'static str,
    first: Bytes,
    rest: mpsc::Receiver<io::Result<Bytes>>,
) -> Response<Body> {
    respond(StatusCode::OK, kind, Body::Stream(first, rest))
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
