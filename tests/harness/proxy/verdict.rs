//! What happens to one command, and to one reply.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Way;
use super::link::Link;
use super::network::Shared;
use super::resp::{Command, Reply};
use super::rule::{Action, Armed};
use super::shape::{Outbox, Strike};

/// What a reply from Redis will be the answer to.
pub(super) enum Expected {
    /// A command that no rule about replies matches.
    Plain,
    /// A command whose reply these rules count.
    Watched(Command, Vec<Arc<Armed>>),
    /// The second copy of a replayed command.
    Copy(Command, Arc<Armed>),
}

/// Passes a command on, or does to it what a rule says.
pub(super) async fn pass_request(
    shared: &Shared,
    link: &Link,
    command: Command,
    out: &mut Outbox<'_>,
) -> io::Result<()> {
    if command.arguments.is_empty() {
        out.add(&command.frame);
        return Ok(());
    }
    let is_subscription = command.is_subscription();
    if is_subscription {
        link.has_subscribed.store(true, Ordering::Release);
    }
    let (striker, watchers) = rules_about(shared, link, &command);
    if let Some(rule) = &striker
        && matches!(rule.action, Action::Hold)
    {
        out.flush().await?;
        rule.strike(&command);
        rule.ended().await;
    }
    if !is_subscription {
        link.expect(match watchers.is_empty() {
            true => Expected::Plain,
            false => Expected::Watched(command.clone(), watchers),
        });
    }
    let frame = command.frame.clone();
    let Some(rule) = striker else {
        out.add(&frame);
        return Ok(());
    };
    match rule.action {
        Action::Hold | Action::LoseReply { .. } => out.add(&frame),
        Action::Observe => out.strike(frame, Strike::new(rule, command, None)).await?,
        Action::Replay => {
            link.expect(Expected::Copy(command, rule));
            out.add(&frame);
            out.add(&frame);
        }
        Action::LoseRequest { keep_bytes, then } => {
            let kept = frame.slice(..keep_bytes.min(frame.len()));
            let strike = Strike::new(rule, command, Some(then));
            out.strike(kept, strike).await?;
        }
    }
    Ok(())
}

/// The rule that strikes this command now, and those that wait for its reply.
fn rules_about(shared: &Shared, link: &Link, command: &Command) -> (Option<Arc<Armed>>, Vec<Arc<Armed>>) {
    let mut striker = None;
    let mut watchers = Vec::new();
    if !link.loses(Way::Requests) {
        for rule in shared.rules_for(command) {
            if matches!(rule.action, Action::LoseReply { .. }) {
                watchers.push(rule);
            } else if rule.count() && striker.is_none() {
                striker = Some(rule);
            }
        }
    }
    (striker, watchers)
}

/// Passes a reply on, or does to it what a rule says.
pub(super) async fn pass_reply(link: &Link, reply: Reply, out: &mut Outbox<'_>) -> io::Result<()> {
    if reply.is_push(link.has_subscribed.load(Ordering::Acquire)) {
        out.add(&reply.frame);
        return Ok(());
    }
    match link.next_expected() {
        Some(Expected::Copy(command, rule)) => {
            let nothing = reply.frame.slice(..0);
            out.strike(nothing, Strike::new(rule, command, None)).await
        }
        Some(Expected::Watched(command, rules)) if !reply.is_nothing() => {
            let mut kept = reply.frame.clone();
            let mut strike = None;
            for rule in rules {
                if rule.count()
                    && strike.is_none()
                    && let Action::LoseReply { keep_bytes, then } = rule.action
                {
                    kept.truncate(keep_bytes);
                    strike = Some(Strike::new(rule, command.clone(), Some(then)));
                }
            }
            match strike {
                Some(strike) => out.strike(kept, strike).await,
                None => {
                    out.add(&kept);
                    Ok(())
                }
            }
        }
        _ => {
            out.add(&reply.frame);
            Ok(())
        }
    }
}
