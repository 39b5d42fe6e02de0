//! A cluster: commands to one master travel as one pipeline, what was moved follows by itself.

use std::sync::Arc;

use futures::future::join_all;
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value,
    cluster_async::ClusterConnection,
    cluster_routing::{Route, SingleNodeRoutingInfo, Slot, SlotAddr},
};

use crate::shards::Shards;

/// A connection to all masters, and what was last seen of their slots.
#[derive(Clone)]
pub(crate) struct Cluster {
    connection: ClusterConnection,
    shards: Arc<Shards>,
}

/// The answers to commands, in their order.
pub(crate) struct Answers {
    pub(crate) results: Vec<RedisResult<Value>>,
    /// Slots were moved: [`Cluster::refreshed`] would see where to.
    pub(crate) moved: bool,
}

impl Cluster {
    /// Looks which master serves which slot.
    pub(crate) async fn new(mut connection: ClusterConnection) -> RedisResult<Self> {
        let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        Ok(Cluster { connection, shards: Arc::new(Shards::parse(&slots)) })
    }

    /// The same connection, with a new look at the slots.
    pub(crate) async fn refreshed(&self) -> RedisResult<Self> {
        Self::new(self.connection.clone()).await
    }

    /// Sends commands; the order holds per slot.
    pub(crate) async fn run(&self, commands: &[Cmd]) -> Answers {
        let plan = self.shards.plan(commands);
        let groups = plan.groups.iter().map(|(slot, places)| self.pipeline(*slot, commands, places));
        let (grouped, alone) = tokio::join!(join_all(groups), self.one_by_one(commands, &plan.alone));

        let mut results: Vec<Option<RedisResult<Value>>> = commands.iter().map(|_| None).collect();
        let mut redirected = Vec::new();
        let in_groups = plan.groups.iter().flat_map(|(_, places)| places).zip(grouped.into_iter().flatten());
        for (place, result) in in_groups {
            if result.as_ref().is_err_and(is_redirection) {
                redirected.push(*place);
            }
            results[*place] = Some(result);
        }
        redirected.sort_unstable();
        let followed = self.one_by_one(commands, &redirected).await;
        for (place, result) in plan.alone.iter().zip(alone).chain(redirected.iter().zip(followed)) {
            results[*place] = Some(result);
        }
        let results = results.into_iter().map(|result| result.unwrap_or_else(|| Err(no_answer()))).collect();
        Answers { results, moved: !redirected.is_empty() }
    }

    async fn pipeline(&self, slot: Slot, commands: &[Cmd], places: &[usize]) -> Vec<RedisResult<Value>> {
        let mut pipeline = Pipeline::with_capacity(places.len());
        for place in places {
            pipeline.add_command(commands[*place].clone());
        }
        let route = SingleNodeRoutingInfo::SpecificNode(Route::with_slot(slot, SlotAddr::Master));
        let mut connection = self.connection.clone();
        match connection.route_pipeline(pipeline, 0, places.len(), route).await {
            Ok(values) => values.into_iter().map(Value::extract_error).collect(),
            Err(error) => places.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Each command by itself: the client follows it to where its slot is now.
    async fn one_by_one(&self, commands: &[Cmd], places: &[usize]) -> Vec<RedisResult<Value>> {
        let queries = places.iter().map(|place| {
            let mut connection = self.connection.clone();
            async move { commands[*place].query_async::<Value>(&mut connection).await }
        });
        join_all(queries).await
    }
}

fn is_redirection(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, Moved, TryAgain};
    matches!(error.kind(), ErrorKind::Server(Moved | Ask | TryAgain))
}

fn no_answer() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "fewer answers than commands").into()
}
