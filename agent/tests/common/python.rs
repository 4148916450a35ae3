//! What a client of Python functions packs, by the host's `python3`.

use std::process::Command;

use bytes::Bytes;
use fleetpool_proto::{
    Payloads,
    message::ToAgent,
    pool::{ContentHash, PoolOptions, Runtime},
};

use super::Boss;

/// What a client packs, by the interpreter itself: the context of a pool, and a function.
pub(crate) fn pickled(expression: &str) -> Bytes {
    let program =
        format!("import pickle, sys; sys.stdout.buffer.write(pickle.dumps({expression}, 4))");
    let run = Command::new("python3").args(["-c", &program]).output();
    let run = run.expect("these tests need python3");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    run.stdout.into()
}

pub(crate) fn context() -> Bytes {
    context_with("")
}

/// The context of a pool whose workers find modules in this folder too.
pub(crate) fn context_with(folder: &str) -> Bytes {
    pickled(&format!(
        "{{'version': sys.version_info[:2], 'remote': True, 'path': [{folder:?}], 'argv': ['x'], 'main': {{}}, \
         'authkey': b''}}"
    ))
}

pub(crate) fn function() -> Bytes {
    pickled("(None, (), {}, pickle.dumps(eval))")
}

pub(crate) fn hash_of(bytes: &Bytes) -> ContentHash {
    ContentHash(*blake3::hash(bytes).as_bytes())
}

pub(crate) fn pool(interpreter: &str, context: &Bytes) -> PoolOptions {
    PoolOptions {
        runtime: Runtime::Python {
            interpreter: interpreter.to_owned(),
            context: hash_of(context),
        },
        kill_grace_ms: 100,
        ..PoolOptions::default()
    }
}

/// A task: the function called with one item, a text.
pub(crate) fn task(expression: &str) -> Bytes {
    let len = u8::try_from(expression.len()).expect("a short expression");
    [
        b"\x01\x80\x04\x8c".as_slice(),
        &[len],
        expression.as_bytes(),
        b"\x94.",
    ]
    .concat()
    .into()
}

pub(crate) async fn bring(boss: &mut Boss, content: &Bytes) {
    let hash = hash_of(content);
    boss.until("its wish", |boss| boss.wanted.contains(&hash).then_some(()))
        .await;
    boss.wanted.clear();
    boss.say(ToAgent::Content {
        hash,
        payloads: Payloads::from(vec![content.clone()]),
    })
    .await;
}
