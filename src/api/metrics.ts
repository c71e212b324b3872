// /1.0/metrics: for Prometheus
import type { Engine } from '#src/engine/engine.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp, Caller } from './app.ts';

const READ_MS = 30_000;

export function registerMetricsRoutes(app: ApiApp, { metrics, config }: Pick<Engine, 'metrics' | 'config'>): void {
  const mayRead = ({ trusted, readsMetrics = false }: Caller) => {
    return trusted || readsMetrics || !config.flag('core.metrics_authentication');
  };

  app.get(
    '/1.0/metrics',
    { schema: { summary: 'Get figures of instances and daemon (OpenMetrics)' }, config: { untrusted: true } },
    async ({ caller }, reply) => {
      if (!mayRead(caller)) throw new AppError('forbidden', 'not authorized');
      return reply
        .header('content-type', 'text/plain; charset=utf-8')
        .send(await metrics(caller.projects, limited(READ_MS)));
    },
  );
}
