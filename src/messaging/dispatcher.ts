// Which handler serves a request (section 1.5), and the endpoints that every server has (section 1.11).
import { DispatchError } from './failure.ts';
import type { RpcEndpoint, RpcHandler } from './types.ts';
import { isCompatible } from './version.ts';

/** The first endpoint of the namespace and a compatible version that has the method. Throws DispatchError. */
export function findHandler(
  endpoints: readonly RpcEndpoint[],
  request: { readonly method: string; readonly namespace: string | undefined; readonly version: string },
): RpcHandler {
  const { method, namespace, version } = request;
  const candidates = endpoints.filter(
    (endpoint) => endpoint.namespace === namespace && isCompatible(endpoint.version, version),
  );
  if (candidates.length === 0) {
    const message = `Endpoint does not support RPC version ${version}. Attempted method: ${method}`;
    throw new DispatchError('UnsupportedVersion', message);
  }
  for (const { methods } of candidates) {
    const handler = Object.hasOwn(methods, method) && !method.startsWith('_') ? methods[method] : undefined;
    if (handler) return handler;
  }
  throw new DispatchError('NoSuchMethod', `Endpoint does not support RPC method ${method}`);
}

/** Nova's BaseRPCAPI. */
export function baseEndpoint(service: string): RpcEndpoint {
  return {
    namespace: 'baseapi',
    version: '1.1',
    methods: {
      ping: (_context, { arg }) => Promise.resolve({ service, arg: arg ?? null }),
      get_backdoor_port: () => Promise.resolve(null),
    },
  };
}

/** oslo.messaging's own, with rpc_ping_enabled. */
export const pingEndpoint: RpcEndpoint = {
  version: '1.0',
  methods: { oslo_rpc_server_ping: () => Promise.resolve('pong') },
};
