// What browsers are told about other origins (core.https_allowed_*).
import type { ServerConfig } from '#src/engine/server/server-config.ts';
import type { ApiApp } from './app.ts';

export function useCors(app: ApiApp, config: Pick<ServerConfig, 'text' | 'flag'>): void {
  app.addHook('onRequest', async (request, reply) => {
    const origin = config.text('core.https_allowed_origin');
    if (origin === '' || request.headers.origin === undefined) return;
    void reply.header('access-control-allow-origin', origin);
    const methods = config.text('core.https_allowed_methods');
    if (methods !== '') void reply.header('access-control-allow-methods', methods);
    const headers = config.text('core.https_allowed_headers');
    if (headers !== '') void reply.header('access-control-allow-headers', headers);
    if (config.flag('core.https_allowed_credentials')) void reply.header('access-control-allow-credentials', 'true');
    // The question before the request needs no route and no trust.
    if (request.method === 'OPTIONS') return reply.code(200).send('');
  });
}
