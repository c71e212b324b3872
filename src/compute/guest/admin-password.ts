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

/** The task ends whatever happens. A stock compute puts an instance whose guest refuses in error; it is none. */
export async function setAdminPassword(
  { virt, conductor }: Pick<ComputeServices, 'virt' | 'conductor'>,
  context: RequestContext,
  { instance, password }: NewPassword,
  signal: AbortSignal,
): Promise<void> {
  const uuid = instance.get('uuid');
  const user = instance.find('system_metadata')?.['image_os_admin_user'] ?? 'root';
  try {
    if ((await virt.powerState(uuid, signal)) !== POWER_STATES.running) {
      throw failed(uuid, `instance ${uuid} is not running`);
    }
    await virt.setPassword(uuid, { user, password }, signal).catch((cause: unknown) => {
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
