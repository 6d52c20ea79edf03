//! The `Handler` trait that Rust users implement, and the registry of handlers by kind.
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use leasehold::job::ErrorCode;
use leasehold::{Json, Kind, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::attempt::context::Context;
use crate::failure::{Done, Failure};
use crate::stop::HANDLER_GRACE;

/// Runs the jobs of one kind. Implemented by any `async fn(Context, P) -> Result<Done<T>, Failure>` where `P` can be
/// read from JSON and `T` written as JSON.
pub trait Handler<P>: Send + Sync + 'static {
    /// The job's result.
    type Output: Serialize;

    /// Runs one attempt. The same job may run again after a crash or a failure, so this should be safe to repeat; with
    /// the context's token a database can refuse writes of an attempt that has lost its lease.
    fn call(&self, context: Context, payload: P) -> impl Future<Output = Result<Done<Self::Output>, Failure>> + Send;
}

impl<F, P, Fut, T> Handler<P> for F
where
    F: Fn(Context, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Done<T>, Failure>> + Send,
    T: Serialize,
{
    type Output = T;

    fn call(&self, context: Context, payload: P) -> impl Future<Output = Result<Done<T>, Failure>> + Send {
        self(context, payload)
    }
}

/// What a successful attempt is settled with: the result, and the reason if it was skipped.
pub(crate) type Completion = (Json, Option<String>);
pub(crate) type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<Completion, Failure>> + Send + 'a>>;

/// A handler whose payload and result types are erased.
pub(crate) trait DynHandler: Send + Sync {
    /// How long the handler has to end after a request to stop; then its future is dropped.
    fn grace(&self) -> Duration;

    fn call_json<'a>(&'a self, context: Context, payload: &'a Json) -> HandlerFuture<'a>;
}

/// Adapts a [`Handler`] to [`DynHandler`].
struct TypedHandler<H, P> {
    handler: H,
    limits: Limits,
    payload: std::marker::PhantomData<fn() -> P>,
}

impl<P: DeserializeOwned + Send + 'static, H: Handler<P>> DynHandler for TypedHandler<H, P> {
    fn grace(&self) -> Duration {
        HANDLER_GRACE
    }

    fn call_json<'a>(&'a self, context: Context, payload: &'a Json) -> HandlerFuture<'a> {
        Box::pin(async move {
            let payload: P = serde_json::from_str(payload.as_str()).map_err(|e| {
                Failure::fatal(format!("the payload does not match this kind: {e}")).with_code(ErrorCode::BadPayload)
            })?;
            match self.handler.call(context, payload).await? {
                Done::Result(result) => {
                    let text = serde_json::to_string(&result)
                        .map_err(|e| Failure::fatal(format!("the result cannot be written as JSON: {e}")))?;
                    parse_result(&text, &self.limits).map(|result| (result, None))
                }
                Done::Skipped(reason) => Ok((Json::null(), Some(reason))),
            }
        })
    }
}

/// Parses a result, checking the limits.
pub(crate) fn parse_result(text: &str, limits: &Limits) -> Result<Json, Failure> {
    Json::parse(text, limits.json_depth, limits.result_bytes)
        .map_err(|e| Failure::fatal(format!("the result is refused: {e} (limits.result_bytes, limits.json_depth)")))
}

/// The handlers of a worker, by kind.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    handlers: BTreeMap<Kind, Arc<dyn DynHandler>>,
}

impl Registry {
    /// Adds a Rust user's handler.
    pub fn add<P, H>(&mut self, kind: Kind, handler: H, limits: &Limits) -> Result<(), String>
    where
        P: DeserializeOwned + Send + 'static,
        H: Handler<P>,
    {
        self.add_dyn(
            kind,
            Arc::new(TypedHandler { handler, limits: limits.clone(), payload: std::marker::PhantomData }),
        )
    }

    /// Adds a built-in handler or a command. Each kind has exactly one handler.
    pub fn add_dyn(&mut self, kind: Kind, work: Arc<dyn DynHandler>) -> Result<(), String> {
        match self.handlers.insert(kind.clone(), work) {
            Some(_) => Err(format!("kind {kind} has two handlers; name each kind once, here or as a command")),
            None => Ok(()),
        }
    }

    pub fn get(&self, kind: &Kind) -> Option<&Arc<dyn DynHandler>> {
        self.handlers.get(kind)
    }

    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.handlers.keys()
    }
}

#[cfg(test)]
mod tests {
    use leasehold::retry::Wish;

    use super::*;

    #[test]
    fn a_result_over_a_limit_names_it() {
        let limits = Limits { result_bytes: 4, json_depth: 2, ..Limits::default() };
        for (text, named) in [("\"12345\"", "result_bytes"), ("[[[1]]]", "json_depth")] {
            let failure = parse_result(text, &limits).expect_err("over the limit");
            assert!(failure.wish == Wish::Never && failure.message.contains(named), "{failure:?}");
        }
        assert_eq!(parse_result("[[1]]", &Limits::default()).map(|j| j.as_str().to_owned()), Ok("[[1]]".into()));
    }
}
