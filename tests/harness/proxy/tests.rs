//! Each fault of the proxy, seen from a client's and from Redis's side.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::redis::RedisServer;
use crate::wait::eventually;

/// Long enough for anything that happens at all.
const LIMIT: Duration = Duration::from_secs(20);
/// How long silence is watched before it counts as silence.
const SILENCE: Duration = Duration::from_millis(100);

async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("it ends in time")
}

async fn redis_behind_proxy() -> (RedisServer, Proxy) {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    (redis, proxy)
}

async fn connect(proxy: &Proxy) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = Client::open(proxy.url()).unwrap();
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    in_time(connection).await.unwrap()
}

async fn increment(connection: &mut MultiplexedConnection) -> RedisResult<i64> {
    let mut command = redis::cmd("INCR");
    in_time(command.arg("n").query_async(connection)).await
}

async fn counter(redis: &RedisServer) -> i64 {
    redis.command::<Option<i64>>(&["GET", "n"]).await.unwrap_or(0)
}

#[tokio::test]
async fn the_reply_to_the_second_command_is_lost_after_it_ran() {
    let (redis, proxy) = redis_behind_proxy().await;
    let rule = proxy.drop_reply_to(command("INCR"), 2, Then::Cut);
    let mut connection = connect(&proxy).await;
    assert_eq!(increment(&mut connection).await.unwrap(), 1);
    assert!(!rule.has_fired());
    increment(&mut connection).await.unwrap_err();
    assert!(rule.fired().await.contains(b"n"));
    assert_eq!(counter(&redis).await, 2);

    let mut connection = connect(&proxy).await;
    assert_eq!(increment(&mut connection).await.unwrap(), 3);
    assert_eq!(rule.seen(), 3);
}

#[tokio::test]
async fn replies_are_counted_in_a_pipeline_and_across_connections() {
    let (redis, proxy) = redis_behind_proxy().await;
    let rule = proxy.drop_reply_to(command("incr"), 5, Then::Cut);
    let mut first = connect(&proxy).await;
    let mut pipeline = redis::pipe();
    for _ in 0..3 {
        pipeline.cmd("GET").arg("n").cmd("INCR").arg("n");
    }
    let () = in_time(pipeline.query_async(&mut first)).await.unwrap();
    let mut second = connect(&proxy).await;
    in_time(pipeline.query_async::<()>(&mut second)).await.unwrap_err();
    rule.fired().await;
    assert_eq!(counter(&redis).await, 6);
}

#[tokio::test]
async fn a_pop_that_timed_out_is_no_answer_to_lose() {
    let (redis, proxy) = redis_behind_proxy().await;
    let rule = proxy.drop_reply_to(command("BRPOPLPUSH"), 1, Then::BlackHole);
    let mut connection = connect(&proxy).await;
    let mut pop = redis::cmd("BRPOPLPUSH");
    pop.arg("queue").arg("claimed").arg("0.01");
    let nothing: Option<String> = in_time(pop.query_async(&mut connection)).await.unwrap();
    assert_eq!((nothing, rule.seen()), (None, 0));

    let () = redis.command(&["LPUSH", "queue", "id"]).await;
    let silent = pop.query_async::<Option<String>>(&mut connection);
    tokio::select! {
        answer = silent => panic!("the reply came through: {answer:?}"),
        _ = rule.fired() => {}
    }
    let claimed: Vec<String> = redis.command(&["LRANGE", "claimed", "0", "-1"]).await;
    assert_eq!(claimed, ["id"]);
}

#[tokio::test]
async fn a_script_is_known_by_its_hash() {
    let (redis, proxy) = redis_behind_proxy().await;
    let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
    let rule = proxy.drop_reply_to(super::script(script.get_hash()), 1, Then::Cut);
    let mut connection = connect(&proxy).await;
    // The first EVALSHA is answered NOSCRIPT, and the client loads the script and goes on.
    let mut call = script.prepare_invoke();
    call.key("n");
    in_time(call.invoke_async::<i64>(&mut connection)).await.unwrap_err();
    rule.fired().await;
    assert_eq!(counter(&redis).await, 1);
}

#[tokio::test]
async fn a_replayed_command_runs_twice_and_is_answered_once() {
    let (redis, proxy) = redis_behind_proxy().await;
    let rule = proxy.replay(command("INCR"), 1);
    let mut connection = connect(&proxy).await;
    assert_eq!(increment(&mut connection).await.unwrap(), 1);
    rule.fired().await;
    assert_eq!(increment(&mut connection).await.unwrap(), 3);
    assert_eq!(counter(&redis).await, 3);
}

#[tokio::test]
async fn a_lost_or_broken_request_never_runs() {
    let (redis, proxy) = redis_behind_proxy().await;
    for keep_bytes in [0, 9] {
        let rule = proxy.cut_request_to(command("INCR"), 1, keep_bytes, Then::Cut);
        increment(&mut connect(&proxy).await).await.unwrap_err();
        rule.fired().await;
    }
    assert_eq!(counter(&redis).await, 0);
}

#[tokio::test]
async fn a_reply_can_break_in_the_middle() {
    let (redis, proxy) = redis_behind_proxy().await;
    let () = redis.command(&["SET", "n", "4711"]).await;
    let rule = proxy.cut_reply_to(command("GET"), 1, 6, Then::Cut);
    let mut raw = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    raw.write_all(b"GET n\r\n").await.unwrap();
    let mut arrived = Vec::new();
    in_time(raw.read_to_end(&mut arrived)).await.unwrap_err();
    assert_eq!(arrived, b"$4\r\n47");
    rule.fired().await;
}

#[tokio::test]
async fn a_held_command_passes_when_released() {
    let (redis, proxy) = redis_behind_proxy().await;
    let rule = proxy.hold(command("INCR"), 1);
    let mut connection = connect(&proxy).await;
    let answer = tokio::spawn(async move { increment(&mut connection).await });
    rule.fired().await;
    assert_eq!(counter(&redis).await, 0);
    rule.release();
    assert_eq!(answer.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn an_observed_command_passes() {
    let (_redis, proxy) = redis_behind_proxy().await;
    let rule = proxy.observe(|command| command.is("INCR"), 2);
    let mut connection = connect(&proxy).await;
    assert_eq!(increment(&mut connection).await.unwrap(), 1);
    assert_eq!(increment(&mut connection).await.unwrap(), 2);
    rule.fired().await;
}

#[tokio::test]
async fn a_cut_resets_both_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start_raw(listener.local_addr().unwrap().port()).await;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"a").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'a');
    proxy.cut();
    for end in [&mut client, &mut server] {
        let error = in_time(end.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    eventually(LIMIT, "it is gone", async || proxy.connections() == 0).await;
}

#[tokio::test]
async fn the_end_of_a_stream_passes_like_its_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start_raw(listener.local_addr().unwrap().port()).await;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    drop(server);
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "questionanswer");
}

#[tokio::test]
async fn a_black_hole_is_silent_and_a_new_connection_works() {
    let (redis, proxy) = redis_behind_proxy().await;
    let mut old = connect(&proxy).await;
    assert_eq!(increment(&mut old).await.unwrap(), 1);
    proxy.black_hole(Way::Both);
    assert!(timeout(SILENCE, increment(&mut old)).await.is_err());
    assert_eq!(increment(&mut connect(&proxy).await).await.unwrap(), 2);

    proxy.freeze(Way::Both);
    proxy.heal().await;
    increment(&mut old).await.unwrap_err();
    assert_eq!(counter(&redis).await, 2);
}

#[tokio::test]
async fn with_replies_lost_commands_still_run() {
    let (redis, proxy) = redis_behind_proxy().await;
    let mut connection = connect(&proxy).await;
    proxy.partition(Way::Replies);
    let lost = tokio::spawn(async move { increment(&mut connection).await });
    eventually(LIMIT, "it ran", async || counter(&redis).await == 1).await;
    assert!(!lost.is_finished());
    proxy.heal().await;
    lost.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn what_is_frozen_arrives_late() {
    let (redis, proxy) = redis_behind_proxy().await;
    let mut connection = connect(&proxy).await;
    proxy.freeze(Way::Requests);
    let mut late = tokio::spawn(async move { increment(&mut connection).await });
    assert!(timeout(SILENCE, &mut late).await.is_err());
    assert_eq!(counter(&redis).await, 0);
    proxy.heal().await;
    assert_eq!(late.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_refusing_proxy_keeps_the_connections_it_has() {
    let (_redis, proxy) = redis_behind_proxy().await;
    let mut old = connect(&proxy).await;
    proxy.accept(false).await;
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(increment(&mut old).await.unwrap(), 1);
    proxy.accept(true).await;
    assert_eq!(increment(&mut connect(&proxy).await).await.unwrap(), 2);
}

#[tokio::test]
async fn a_killed_redis_is_seen_through_the_proxy() {
    let (redis, proxy) = redis_behind_proxy().await;
    let mut connection = connect(&proxy).await;
    assert_eq!(increment(&mut connection).await.unwrap(), 1);
    redis.kill9();
    increment(&mut connection).await.unwrap_err();
    redis.restart().await;
    assert_eq!(increment(&mut connect(&proxy).await).await.unwrap(), 2);
}

#[tokio::test]
async fn slow_and_broken_up_traffic_stays_whole() {
    let (_redis, proxy) = redis_behind_proxy().await;
    let mut connection = connect(&proxy).await;
    proxy.shape(Shape {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        bytes_per_second: 1_000_000,
        fragment_bytes: 3,
        fragment_pause: Duration::ZERO,
    });
    let rule = proxy.observe(command("SET"), 50);
    let value = "v\r\n".repeat(200);
    let begin = std::time::Instant::now();
    for _ in 0..5 {
        let mut pipeline = redis::pipe();
        for _ in 0..10 {
            pipeline.cmd("SET").arg("key").arg(&value).ignore();
            pipeline.cmd("GET").arg("key");
        }
        let answers: Vec<String> = in_time(pipeline.query_async(&mut connection)).await.unwrap();
        assert_eq!(answers, vec![value.clone(); 10]);
    }
    rule.fired().await;
    assert!(begin.elapsed() >= Duration::from_millis(5 * 2 * 20));
}

#[tokio::test]
async fn subscriptions_do_not_upset_the_count_of_replies() {
    for protocol in ["", "?protocol=resp3"] {
        let (redis, proxy) = redis_behind_proxy().await;
        let client = Client::open(format!("{}{protocol}", proxy.url())).unwrap();
        let mut listener = client.get_async_pubsub().await.unwrap();
        listener.subscribe(&["one", "two"]).await.unwrap();
        let rule = proxy.observe(command("UNSUBSCRIBE"), 1);
        let () = redis.command(&["PUBLISH", "two", "hello"]).await;
        let mut messages = listener.on_message();
        let message = in_time(messages.next()).await.unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), "hello");
        drop(messages);
        listener.unsubscribe("one").await.unwrap();
        rule.fired().await;
        eventually(LIMIT, "one is left", async || {
            redis.command::<Vec<String>>(&["PUBSUB", "CHANNELS"]).await == ["two"]
        })
        .await;
    }
}
