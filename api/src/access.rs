//! Authorization: the scope that each route requires, and the middleware that checks it.
//!
//! Without a file of tokens every request is allowed, and the API listens on loopback only.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leasehold::server::Client;
use leasehold::tokens::{NotAdmitted, Scope};

use crate::error::{Code, Problem};
use crate::state::Api;

/// The scope that a request requires; `None` when it requires no token. A route that is not listed here requires `read`
/// for safe methods and `admin` for all others, so a new route is closed by default.
pub fn needed(method: &Method, route: &str) -> Option<Scope> {
    let reads = method.is_safe();
    match route {
        "/" | "/livez" | "/readyz" | "/openapi.json" | "/openapi-views.json" if reads => None,
        _ if reads => Some(Scope::Read),
        "/api/v1/jobs" | "/api/v1/jobs/bulk" | "/api/v1/jobs/{id}/items" if method == Method::POST => {
            Some(Scope::Submit)
        }
        "/api/v1/gap-analysis/jobs" | "/jobs" | "/api/suggestions" | "/batch/screenshots" | "/api/analyze"
            if method == Method::POST =>
        {
            Some(Scope::Submit)
        }
        _ => Some(Scope::Admin),
    }
}

/// Refuses requests without a sufficient token, and passes the others on.
pub async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(guard) = api.guard() else { return next.run(request).await };
    // A path that does not exist is a 404 for everybody.
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some(scope) = route.and_then(|route| needed(request.method(), route)) else { return next.run(request).await };
    match guard.now().admit(request.headers(), scope) {
        Ok(name) => {
            tracing::Span::current().record("token", name);
            next.run(request).await
        }
        Err(refused) => {
            let is_missing = !request.headers().contains_key(AUTHORIZATION);
            let client = request.extensions().get::<Client>().copied();
            refuse(&api, client, is_missing, refused).await.into_response()
        }
    }
}

/// Counts a refusal, and delays that of a wrong token when its client has sent many.
async fn refuse(api: &Api, client: Option<Client>, is_missing: bool, refused: NotAdmitted) -> Problem {
    let reason = match refused {
        NotAdmitted::Forbidden(_) => "scope",
        NotAdmitted::Unknown(_) if is_missing => "missing",
        NotAdmitted::Unknown(_) => "unknown",
    };
    if reason == "unknown"
        && let Some(client) = client
    {
        let Some(delay) = api.wrong_tokens().note(client) else {
            api.metrics().refused_token("too_many");
            return Problem::new(Code::TooManyTokens, "too many wrong tokens came from this address; try again");
        };
        tokio::time::sleep(delay).await;
    }
    api.metrics().refused_token(reason);
    Problem::from(refused)
}

impl From<NotAdmitted> for Problem {
    fn from(refused: NotAdmitted) -> Self {
        match refused {
            NotAdmitted::Unknown(detail) => Problem::new(Code::Unauthorized, detail),
            NotAdmitted::Forbidden(detail) => Problem::new(Code::Forbidden, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use leasehold::tokens::{Tokens, mint};

    use super::*;
    use crate::routed::routed;

    /// A method, and the scope that it requires.
    type Need = (&'static str, Option<Scope>);

    /// The scope of every route. A new route must be added here.
    const ROUTES: &[(&str, &[Need])] = {
        const READ: Option<Scope> = Some(Scope::Read);
        const SUBMIT: Option<Scope> = Some(Scope::Submit);
        const ADMIN: Option<Scope> = Some(Scope::Admin);
        &[
            ("/api/v1/jobs", &[("GET", READ), ("POST", SUBMIT), ("DELETE", ADMIN)]),
            ("/api/v1/jobs/bulk", &[("POST", SUBMIT)]),
            ("/api/v1/jobs/{id}", &[("GET", READ), ("DELETE", ADMIN)]),
            ("/api/v1/jobs/{id}/events", &[("GET", READ)]),
            ("/api/v1/jobs/{id}/history", &[("GET", READ)]),
            ("/api/v1/jobs/{id}/files", &[("GET", READ)]),
            ("/api/v1/jobs/{id}/files/{name}", &[("GET", READ)]),
            ("/api/v1/jobs/{id}/items", &[("GET", READ), ("POST", SUBMIT)]),
            ("/api/v1/jobs/{id}/cancel", &[("POST", ADMIN)]),
            ("/api/v1/jobs/{id}/retry", &[("POST", ADMIN)]),
            ("/api/v1/queues", &[("GET", READ)]),
            ("/api/v1/queues/{queue}", &[("GET", READ), ("DELETE", ADMIN)]),
            ("/api/v1/queues/{queue}/pause", &[("POST", ADMIN)]),
            ("/api/v1/queues/{queue}/resume", &[("POST", ADMIN)]),
            ("/api/v1/schedules", &[("GET", READ)]),
            ("/api/v1/schedules/{name}", &[("GET", READ), ("DELETE", ADMIN), ("PUT", ADMIN)]),
            ("/api/v1/schedules/{name}/trigger", &[("POST", ADMIN)]),
            ("/api/v1/schedules/{name}/pause", &[("POST", ADMIN)]),
            ("/api/v1/schedules/{name}/resume", &[("POST", ADMIN)]),
            ("/api/v1/workers", &[("GET", READ)]),
            ("/api/v1/gap-analysis/jobs", &[("GET", READ), ("POST", SUBMIT)]),
            ("/api/v1/gap-analysis/jobs/{job_id}", &[("GET", READ), ("DELETE", ADMIN)]),
            ("/api/v1/gap-analysis/jobs/{job_id}/result", &[("GET", READ)]),
            ("/api/v1/gap-analysis/jobs/{job_id}/cancel", &[("POST", ADMIN)]),
            ("/jobs", &[("GET", READ), ("POST", SUBMIT)]),
            ("/job_results/{job_id}", &[("GET", READ)]),
            ("/job_results/{job_id}/download", &[("GET", READ)]),
            ("/api/job-status/{job_id}", &[("GET", READ)]),
            ("/api/job-status/{job_id}/stream", &[("GET", READ)]),
            ("/api/suggestions", &[("POST", SUBMIT)]),
            ("/batch/screenshots", &[("POST", SUBMIT)]),
            ("/batch/screenshots/{job_id}", &[("GET", READ)]),
            ("/batch/screenshots/{job_id}/results", &[("GET", READ)]),
            ("/batch/results/{job_id}", &[("GET", READ)]),
            ("/api/analyze", &[("POST", SUBMIT)]),
            ("/api/status/{job_id}", &[("GET", READ)]),
            ("/api/jobs", &[("GET", READ)]),
            ("/api/jobs/{job_id}", &[("DELETE", ADMIN)]),
            ("/api/jobs/cleanup", &[("DELETE", ADMIN)]),
            ("/health", &[("GET", READ)]),
            ("/", &[("GET", None)]),
            ("/livez", &[("GET", None)]),
            ("/readyz", &[("GET", None)]),
            ("/metrics", &[("GET", READ)]),
            ("/openapi.json", &[("GET", None)]),
            ("/openapi-views.json", &[("GET", None)]),
        ]
    };

    #[test]
    fn every_route_needs_what_the_table_says() {
        let mut served = routed();
        for (route, methods) in ROUTES {
            let named: Vec<String> = methods.iter().map(|(method, _)| (*method).to_owned()).collect();
            assert_eq!(served.remove(*route), Some(named), "{route}");
            for (method, scope) in *methods {
                assert_eq!(needed(&method.parse().unwrap(), route), *scope, "{method} {route}");
                let row = format!("| `{method} {route}` | {} |", scope.map_or("open", Scope::as_str));
                assert!(include_str!("../../docs/http-api.md").contains(&row), "docs/http-api.md has no row {row}");
            }
        }
        let cells = include_str!("../../docs/http-api.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let documented = cells.filter(|cell| cell.contains(" /"));
        assert_eq!(documented.count(), ROUTES.iter().map(|(_, methods)| methods.len()).sum::<usize>());
        assert!(served.is_empty(), "add these to ROUTES: {served:?}");
        assert_eq!(needed(&Method::POST, "/api/v1/new"), Some(Scope::Admin));
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Scope::Read));
        assert_eq!(needed(&Method::HEAD, "/api/v1/jobs"), Some(Scope::Read));
        assert_eq!(needed(&Method::DELETE, "/livez"), Some(Scope::Admin));
    }

    #[test]
    fn a_token_is_taken_as_a_bearers_alone() {
        let (token, line) = mint("ci", Scope::Submit).unwrap();
        let tokens = Tokens::parse(&line).unwrap();
        let headers =
            |values: &[&str]| values.iter().map(|v| (AUTHORIZATION, v.parse().unwrap())).collect::<HeaderMap>();
        let code = |values: &[&str], scope| {
            tokens.admit(&headers(values), scope).map_err(|refused| Problem::from(refused).code())
        };
        let bearer = format!("Bearer {token}");
        assert_eq!(code(&[&bearer], Scope::Read), Ok("ci"));
        assert_eq!(code(&[&format!("bearer  {token} ")], Scope::Submit), Ok("ci"));
        assert_eq!(code(&[&bearer], Scope::Admin), Err(Code::Forbidden));
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &[token.as_str()],
            &["Basic x"],
            &[&bearer, &bearer],
            &["Bearer x"],
        ] {
            assert_eq!(code(wrong, Scope::Read), Err(Code::Unauthorized), "{wrong:?}");
        }
    }
}
