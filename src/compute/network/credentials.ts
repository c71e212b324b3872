// In whose name Neutron and Glance are asked (section 8.1).
import type { RequestContext } from '#src/nova/context.ts';
import type { Credentials } from '#src/openstack/types.ts';

/** The user's own rights; background work has no token and is done by the service user. */
export function userCredentials(context: RequestContext): Credentials {
  const token = context.authToken;
  if (token === undefined) return serviceCredentials(context);
  const catalog = context.serviceCatalog;
  return { kind: 'user', token, requestId: requestIdOf(context), ...(catalog.length > 0 && { catalog }) };
}

/** The service user's rights: bindings, and reads for the network cache. */
export function serviceCredentials(context: RequestContext): Credentials {
  return { kind: 'service', requestId: requestIdOf(context) };
}

function requestIdOf(context: RequestContext): string {
  return context.globalRequestId ?? context.requestId;
}
