//! The protocol as a model, explored to the last state, and its weakened twins, each of which must be caught: a checker
//! that never fails proves nothing.
//!
//! Five models, each small enough to be explored whole: [`lease`] (who may run a job), [`clock`] (when a lease may be
//! taken back), [`parent`] (who counts and finishes a batch), [`token`] (which token a claim takes when Redis has
//! lost its last writes) and [`tick`] (who submits the jobs of a schedule). A script is one atomic step, and a function
//! named after it; a reply that is on its way is a state of its own. [`check`] explores a model with `stateright`;
//! [`endings`] shows that every run ends, however its steps are scheduled. Runs of minutes are ignored: `cargo test
//! --release -p leasehold-tests --test model -- --ignored`.
//!
//! # Which rule of the model is which line of which script
//!
//! The line carries the comment `-- guard: <name>`. Scripts are in `shared/src/store/lua`; what stands in an include
//! (`clock`, `finish`, `cancel_one`, `retry_one`) holds for each script that includes it. The function of the model is
//! in the file in brackets.
//!
//! | rule | guard | script | model |
//! |---|---|---|---|
//! | a submit of a known id changes nothing | once | submit | `submit` (lease/scripts) |
//! | items already in are passed over, sealed or not | numbered | items | `submit` (parent/scripts) |
//! | a sealed parent takes no new items | unsealed | items | `submit` (parent/scripts) |
//! | a reservation is leased only if it is in this worker's list | reserved | claim | `claim` (lease/scripts) |
//! | a job is leased only if it is queued | queued | claim | `claim` |
//! | a claim that is sent again leases nothing more, and is given what it leased the first time | numbered | claim | `lose_call`, `arrive` (lease/worker) |
//! | each claim takes a larger token | fresh-token | claim | `claim`, and `claim` (token/model) |
//! | a token is at least the clock: a counter that was rolled back is behind | outrun | claim | `claim` (token/model) |
//! | and larger than any that the claiming worker has seen | seen | claim | `claim` (token/model) |
//! | a renewal raises the counter to what its worker has seen | seen | renew | `renew` (token/model) |
//! | a renewal names (id, token), and revives this worker's lease under this token | holder | renew | `renew` |
//! | progress and checkpoint are written under the token | holder | report | `report` |
//! | a settle counts only under the running record's worker and token | holder | settle | `settle` |
//! | the same token gets the same answer until the next claim | settled | settle | `settle` |
//! | a fail or release of a flagged job ends cancelled | flagged | settle | `settle` |
//! | a recovered id is pushed only if its job is queued | queued | recover | `recover` (lease/sweep) |
//! | a worker is forgotten only with an empty list | empty | recover | `drop_worker` (lease/sweep) |
//! | and only long after it was seen, grace aside | gone | recover | `strike`: `FalseDrop` (lease/protocol) |
//! | that a lease has run out is checked in the script that takes it back | expired | reclaim | `reclaim` (lease/sweep) |
//! | a reclaim of a flagged job ends cancelled | flagged | reclaim | `reclaim` |
//! | a reclaim looks for a gap itself: Redis may have been away since the sweep | stamped | reclaim | `reclaim` (clock/state) |
//! | a lease that lies further ahead than it may is cut | cut | reclaim | `reclaim` (clock/state) |
//! | in the grace only what had run out before the gap is taken back | grace | clock | `has_run_out` (clock/state) |
//! | a gap in the stamps, or a step back, is kept | gap | clock | `stamp` (clock/state) |
//! | if the last stamp still lay in a grace, its older beginning is kept | oldest | clock | `stamp` (clock/state) |
//! | only what is still scheduled or retrying is promoted | due | promote | `promote` (lease/sweep) |
//! | a final job is not cancelled: a complete that comes first wins | living | cancel_one | `cancel` (lease/sweep) |
//! | a cancelled parent is sealed | sealing | cancel_one | `cancel` (parent/scripts) |
//! | a parent left unsealed is cancelled | open | cancel | `Action::Expire` (parent/model) |
//! | a cascade stands until its last step, whoever takes it | standing | cascade | `cascade` (parent/scripts) |
//! | only what has failed or was cancelled is retried | ended | retry_one | `retry` (lease/sweep) |
//! | an item is retried only under a waiting, unflagged parent | parent | retry_one | `retry_item` (parent/scripts) |
//! | an item's end is counted by the script that ends it, once | counted | finish | `settle`, `end` (parent/scripts) |
//! | an item that lives again leaves the count it ended in | revived | finish | `requeue` (parent/scripts) |
//! | an unsealed parent does not finish | sealed | finish | `finish` (parent/scripts) |
//! | nor does one within a cascade | cascaded | finish | `finish` |
//! | a flagged parent finishes cancelled | flagged | finish | `finish` |
//! | the jobs of ticks are made of the plan that holds | revised | tick | `tick` (tick/model) |
//! | and only while the schedule stands at the tick that was read | unmoved | tick | `tick` |
//! | and not before the tick, though Redis's clock may have been set back | due | tick | `tick` |
//! | a tick that has a job gets no other, though the clock may have brought it back | once | tick | `tick` |
//!
//! The rules that a worker keeps, as no script can:
//!
//! | rule | name | model |
//! |---|---|---|
//! | it registers before its first pop | registered | `Action::Register` (lease/protocol) |
//! | it renews the (id, token) of what runs, not all of its own | named | `beat` (lease/worker), `is_abandoned` (lease/sweep) |
//! | it recovers what is in its list, on the second look | audited | `audit` (lease/worker) |
//! | but not before the claim calls that were open at the first look are answered or given up | unanswered | `audit` |
//! | a mark falls when a claim's answer names its id, and when the recovery is answered | heard | `intake`, `give_back` |
//! | it does not start what was claimed too long ago | prompt | `intake` (lease/worker) |
//!
//! `reserved` is a second line: as long as a claim asks whether the job is queued, nothing breaks without it.
//!
//! Not modelled: priorities, parking, suspects and limits (a queue is a bag: any order of its ids is explored),
//! remove and prune, several partitions (nothing passes between them).

mod check;
mod clock;
mod endings;
mod guard;
mod lease;
mod parent;
mod tick;
mod token;

use guard::{GUARDS, RULES};

#[test]
fn every_guard_has_a_twin() {
    let twins = [lease::TWINS, lease::ENDLESS, clock::TWINS, parent::TWINS, tick::TWINS, token::TWINS, token::SEEN];
    let lacked: Vec<_> = twins.into_iter().flatten().copied().flatten().map(|guard| guard.name()).collect();
    for name in GUARDS.iter().copied().chain(RULES.iter().map(|&rule| (rule, "worker"))) {
        assert!(lacked.contains(&name), "no twin lacks {name:?}");
    }
}

#[test]
fn every_guard_stands_in_its_script() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/store/lua");
    let mut marked = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("-- guard: "));
        marked.extend(names.map(|name| (name.split(' ').next().unwrap().to_owned(), script.clone())));
    }
    let modelled = GUARDS.iter().map(|&(name, script)| (name.to_owned(), script.to_owned())).collect();
    assert_eq!(marked, modelled);
}
