//! Schedules: list, read, write, pause, resume, trigger, remove.
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use leasehold::job::Priority;
use leasehold::schedule::{CatchUp, DeclaredIn, Overlap, Plan};
use leasehold::{Json as JobJson, Refusal, ScheduleName, Timestamp, limits};

use super::submit::accepted;
use super::{Answer, found, object};
use crate::error::Problem;
use crate::extract::body::JsonText;
use crate::extract::query::{Named, NoQuery};
use crate::fields::Reader;
use crate::state::Api;
use crate::submission::{Rules, known, priority};

/// `GET /api/v1/schedules`
pub async fn list(State(api): State<Api>, _: NoQuery) -> Answer {
    let schedules = api.store().await?.schedules().await.map_err(Problem::reading)?;
    Ok(object("schedules", schedules))
}

/// `GET /api/v1/schedules/{name}`
pub async fn get(State(api): State<Api>, Named(name): Named<ScheduleName>, _: NoQuery) -> Answer {
    let schedule = api.store().await?.schedule(&name).await.map_err(Problem::reading)?;
    let schedule = schedule.ok_or_else(|| Problem::refused(Refusal::NoSchedule(name)))?;
    Ok(Json(schedule).into_response())
}

/// `PUT /api/v1/schedules/{name}`: 201 for a new one.
pub async fn put(State(api): State<Api>, Named(name): Named<ScheduleName>, _: NoQuery, body: JsonText) -> Answer {
    api.defaults_known().await?;
    let (plan, paused) = read(Reader::open(body.as_str())?, &api.rules())?;
    drop(body);
    let store = api.store().await?;
    let written = store.put_schedule(&name, &plan, paused, DeclaredIn::Api, &api.rules().kinds).await;
    let (schedule, created) = written.map_err(Problem::changing)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(LOCATION, format!("/api/v1/schedules/{name}"))], Json(schedule)).into_response())
}

/// `DELETE /api/v1/schedules/{name}`
pub async fn remove(State(api): State<Api>, Named(name): Named<ScheduleName>, _: NoQuery) -> Answer {
    api.store().await?.remove_schedule(&name, DeclaredIn::Api).await.map_err(Problem::changing)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/schedules/{name}/pause`
pub async fn pause(State(api): State<Api>, Named(name): Named<ScheduleName>, _: NoQuery) -> Answer {
    set_paused(&api, &name, true).await
}

/// `POST /api/v1/schedules/{name}/resume`
pub async fn resume(State(api): State<Api>, Named(name): Named<ScheduleName>, _: NoQuery) -> Answer {
    set_paused(&api, &name, false).await
}

async fn set_paused(api: &Api, name: &ScheduleName, paused: bool) -> Answer {
    let schedule = api.store().await?.pause_schedule(name, paused).await.map_err(Problem::changing)?;
    Ok(Json(schedule).into_response())
}

/// `POST /api/v1/schedules/{name}/trigger`: a job now, besides the ticks.
pub async fn trigger(State(api): State<Api>, Named(name): Named<ScheduleName>, _: NoQuery) -> Answer {
    api.defaults_known().await?;
    let store = api.store().await?;
    let id = store.trigger_schedule(&name, &api.rules().kinds).await.map_err(Problem::changing)?;
    let mut job = found(store.get(&id).await.map_err(Problem::after_a_change)?, &id)?;
    api.say_served(&store, [&mut job]).await;
    Ok(accepted(job, false))
}

/// Reads a plan, and whether it is paused.
fn read(mut reader: Reader<'_>, rules: &Rules<'_>) -> Result<(Plan, bool), Problem> {
    let (cron, time_zone) = (reader.text("cron"), reader.text("time_zone"));
    let every_ms = reader.whole("every_ms", 0, u64::MAX);
    let (kind, payload) = (reader.required("kind"), reader.payload("payload", rules.limits));
    let (queue, priority): (_, Option<Priority>) = (reader.name("queue"), priority(&mut reader));
    let max_attempts = reader.whole("max_attempts", 1, limits::ATTEMPTS_MAX.into());
    let timeout_ms = reader.whole("timeout_ms", 1, limits::TIMEOUT_MS_MAX);
    let overlap = word(&mut reader, "overlap", Overlap::parse, "skip, allow or replace");
    let catch_up = word(&mut reader, "catch_up", CatchUp::parse, "one, none or all");
    let paused = reader.flag("paused");
    let (start_at, end_at) = (reader.time("start_at"), reader.time("end_at"));
    reader.finish()?;
    let plan = Plan {
        cron,
        time_zone,
        every_ms,
        kind: kind.expect("a missing kind is a fault"),
        payload: payload.unwrap_or_else(JobJson::null),
        queue,
        priority,
        max_attempts: max_attempts.and_then(|n| u32::try_from(n).ok()),
        timeout_ms,
        overlap: overlap.unwrap_or_default(),
        catch_up: catch_up.unwrap_or_default(),
        start_at,
        end_at,
    };
    known(&plan.kind, rules)?;
    plan.ticks(Timestamp(0)).map_err(|fault| Problem::refused(Refusal::Timing(fault)))?;
    Ok((plan, paused))
}

/// One of the words of a setting.
fn word<T>(reader: &mut Reader<'_>, field: &'static str, parse: impl Fn(&str) -> Option<T>, words: &str) -> Option<T> {
    let text = reader.text(field)?;
    let value = parse(&text);
    if value.is_none() {
        let shown: String = text.chars().take(80).collect();
        reader.fault(field, format!("{shown:?} is not {words}"));
    }
    value
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leasehold::{Kinds, Limits};

    use super::*;

    fn read_text(text: &str) -> Result<(Plan, bool), serde_json::Value> {
        let limits = Limits { payload_bytes: 100, ..Limits::default() };
        let rules = Rules { kinds: Arc::new(Kinds::default()), known_kinds_only: false, limits: &limits };
        let plan = Reader::open(text).and_then(|reader| read(reader, &rules));
        plan.map_err(|problem| serde_json::to_value(&problem).unwrap())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let (plan, paused) = read_text(r#"{"cron": "@daily", "kind": "a", "overlap": null}"#).unwrap();
        assert_eq!((plan.overlap, plan.catch_up, paused), (Overlap::Skip, CatchUp::One, false));
        assert_eq!((plan.payload.as_str(), plan.queue, plan.time_zone), ("null", None, None));
    }

    #[test]
    fn each_fault_is_named_with_its_pointer() {
        for (text, status, pointer, said) in [
            (r#"{"cron": "@daily"}"#, 400, "/kind", "required"),
            (r#"{"cron": 5, "kind": "a"}"#, 400, "/cron", "expected a string"),
            (r#"{"cron": "@daily", "kind": "a", "overlap": "queue"}"#, 400, "/overlap", "skip, allow or replace"),
            (r#"{"cron": "@daily", "kind": "a", "catch_up": "two"}"#, 400, "/catch_up", "one, none or all"),
            (r#"{"cron": "@daily", "kind": "a", "timezone": "UTC"}"#, 400, "/timezone", "did you mean \"time_zone\"?"),
            (r#"{"every_ms": 1.5, "kind": "a"}"#, 400, "/every_ms", "whole number"),
            (r#"{"every_ms": 0, "kind": "a"}"#, 422, "/every_ms", "from 1000"),
            (r#"{"kind": "a"}"#, 422, "/cron", "required, unless every_ms"),
            (r#"{"cron": "0 25 * * *", "kind": "a"}"#, 422, "/cron", "write minute, hour"),
            (r#"{"cron": "@daily", "time_zone": "CEST", "kind": "a"}"#, 422, "/time_zone", "IANA"),
        ] {
            let problem = read_text(text).expect_err(text);
            assert_eq!((&problem["status"], &problem["errors"][0]["pointer"]), (&status.into(), &pointer.into()));
            assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(said), "{problem}");
        }
    }
}
