// The service version to advertise: high enough for the cell, never above the control plane (contract section 7.2).
import type { Log } from '#src/lib/log.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Asking } from '../records.ts';

/** SERVICE_VERSION of 2026.2, the newest release whose behaviour this compute has. */
const NEWEST = 74;
/** Zed's; older control planes are not supported. */
const OLDEST = 64;

export interface VersionQuestion {
  readonly asking: Asking;
  /** `[lxd] control_plane_release`; wins over what the conductor says. */
  readonly override: number | null;
  /** Of the present record; a running cell must not be lowered. */
  readonly present: number;
  /** A conductor that has been silent for longer does not count. */
  readonly serviceDownTimeMs: number;
  readonly log: Log;
}

export async function chooseServiceVersion(question: VersionQuestion): Promise<number> {
  const { asking, override, present, log } = question;
  const conductors = override ?? (await conductorVersion(question));
  const computes = await minimumComputeVersion(asking);
  if (conductors < OLDEST) {
    throw new AppError(
      'unsupported',
      `control plane of service version ${conductors}: Zed (${OLDEST}) is the oldest supported`,
    );
  }
  const chosen = Math.max(Math.min(conductors, NEWEST), Math.min(present, NEWEST), Math.min(computes, NEWEST));
  if (computes > NEWEST) {
    log.warn('the computes of this cell are newer than this program', { minimum: computes, ours: NEWEST });
  }
  log.info('service version chosen', { version: chosen, conductors, computes, present });
  return chosen;
}

/** Lowest of the conductors that are alive; those of decommissioned ones would hold it down for ever. */
async function conductorVersion({ asking, serviceDownTimeMs }: VersionQuestion): Promise<number> {
  const call = { object: 'ServiceList', method: 'get_by_binary', args: ['nova-conductor'] } as const;
  const services = expectList(
    await asking.conductor.classMethod(asking.context, { ...call, kwargs: { include_disabled: true } }),
    'ServiceList',
  );
  const oldest = Date.now() - serviceDownTimeMs;
  const alive = services.filter((service) => (service.find('last_seen_up')?.getTime() ?? 0) >= oldest);
  const versions = (alive.length > 0 ? alive : services).map((service) => service.get('version'));
  return versions.length === 0 ? 0 : Math.min(...versions);
}

async function minimumComputeVersion({ conductor, context }: Asking): Promise<number> {
  const call = { object: 'Service', method: 'get_minimum_version', args: ['nova-compute'] } as const;
  return Number(await conductor.classMethod(context, call)) || 0;
}
