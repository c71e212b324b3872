// set_admin_password (section 5.4): the password of the guest's administrator, while it runs.
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES, TASK_STATES } from '#src/nova/states.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';

export interface NewPassword {
  readonly instance: NovaObject<'Instance'>;
  readonly password: string;
}

/** Of a guest that has just been made, where we are to do it; cloud-init may do it as well. A guest that cannot is none the worse. */
export async function injectPassword(
  { virt, config, log }: Pick<ComputeServices, 'virt' | 'config' | 'log'>,
  instance: NovaObject<'Instance'>,
  password: string | null,
  signal: AbortSignal,
): Promise<void> {
  if (!config.metadata.injectPassword || password === null || password === '') return;
  const uuid = instance.get('uuid');
  await virt.setPassword(uuid, { user: adminOf(instance), password }, signal).catch((error: unknown) => {
    signal.throwIfAborted();
    log.warn('cannot set the password of a new guest', { instance: uuid, error });
  });
}

function adminOf(instance: NovaObject<'Instance'>): string {
  return instance.find('system_metadata')?.['image_os_admin_user'] ?? 'root';
}

/** The task ends whatever happens. A stock compute puts an instance whose guest refuses in error; it is none. */
export async function setAdminPassword(
  { virt, conductor }: Pick<ComputeServices, 'virt' | 'conductor'>,
  context: RequestContext,
  { instance, password }: NewPassword,
  signal: AbortSignal,
): Promise<void> {
  const uuid = instance.get('uuid');
  try {
    if ((await virt.powerState(uuid, signal)) !== POWER_STATES.running) {
      throw failed(uuid, `instance ${uuid} is not running`);
    }
    await virt.setPassword(uuid, { user: adminOf(instance), password }, signal).catch((cause: unknown) => {
      if (kindOf(cause) === 'unsupported') throw novaException('SetAdminPasswdNotSupported', {}, { cause });
      throw failed(uuid, messageOf(cause), cause);
    });
  } finally {
    const expected = { expectedTaskState: TASK_STATES.updatingPassword };
    await transition({ conductor, context }, instance, { task_state: null }, expected);
  }
}

function failed(uuid: string, reason: string, cause?: unknown): Error {
  return novaException('InstancePasswordSetFailed', { instance: uuid, reason }, { cause });
}
