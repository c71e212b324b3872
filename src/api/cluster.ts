// /1.0/cluster: there is none; clients ask before they do anything else
import type { ApiApp } from './app.ts';
import { ApiError, syncWithEtag } from './envelope.ts';

const UNCLUSTERED = { server_name: '', enabled: false, member_config: [] };

export function registerClusterRoutes(app: ApiApp): void {
  app.get('/1.0/cluster', { schema: { summary: 'Get the cluster (there is none)' } }, async (_request, reply) => {
    return syncWithEtag(reply, UNCLUSTERED, [UNCLUSTERED]);
  });

  app.put(
    '/1.0/cluster',
    { schema: { summary: 'Make or join a cluster (refused)' }, config: { admin: true } },
    async () => {
      throw new ApiError(400, 'Clustering is not supported by this server');
    },
  );

  for (const path of ['/1.0/cluster/members', '/1.0/cluster/groups'] as const) {
    app.get(path, { schema: { summary: 'List parts of the cluster (there is none)' } }, async () => {
      throw new ApiError(500, 'Server is not clustered');
    });
  }
}
