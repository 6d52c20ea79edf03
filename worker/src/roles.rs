//! The roles of a worker: tasks that run for as long as it does.
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Starts a role, which runs until `gone`.
pub(crate) fn start(
    gone: &CancellationToken,
    roles: &mut JoinSet<()>,
    role: impl Future<Output = ()> + Send + 'static,
) {
    let role = gone.clone().run_until_cancelled_owned(role);
    roles.spawn(async move { role.await.unwrap_or_default() });
}

/// Waits until one of these has panicked; never returns otherwise.
pub(crate) async fn panicked(roles: &mut JoinSet<()>) {
    while let Some(ended) = roles.join_next().await {
        if ended.is_err_and(|e| e.is_panic()) {
            return;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_role_that_panics_is_noticed_and_one_that_ends_is_not() {
        let mut roles = JoinSet::new();
        roles.spawn(async {});
        let waiting = tokio::time::timeout(Duration::from_millis(20), panicked(&mut roles));
        assert!(waiting.await.is_err());
        roles.spawn(async { panic!("on purpose") });
        panicked(&mut roles).await;
    }
}
