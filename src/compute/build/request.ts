// What build_and_run_instance was asked for (section 5.2).
import type { InjectedFile } from '../guest/injected-files.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';

type Plain = Readonly<Record<string, unknown>>;

export interface BuildRequest {
  readonly instance: NovaObject<'Instance'>;
  /** The image as the API shows it; `{}` when the instance boots from a volume. */
  readonly image: Plain;
  readonly requestSpec: NovaObject<'RequestSpec'> | null;
  readonly filterProperties: Plain;
  readonly acceleratorIds: readonly unknown[];
  readonly adminPassword: string | null;
  readonly injectedFiles: readonly InjectedFile[];
  readonly requestedNetworks: NovaObject<'NetworkRequestList'> | null;
  readonly securityGroups: readonly string[];
  readonly blockDevices: readonly NovaObject<'BlockDeviceMapping'>[];
  /** Hosts to try next. */
  readonly hostList: readonly NovaObject<'Selection'>[] | null;
}

/** Scheduler hints: the request spec's, where it has some, as lists; else those of the filter properties. */
export function groupHint({
  requestSpec,
  filterProperties,
}: Pick<BuildRequest, 'requestSpec' | 'filterProperties'>): string | null {
  const fromSpec = requestSpec?.find('scheduler_hints');
  const hints: Plain | null | undefined =
    fromSpec !== undefined && fromSpec !== null && Object.keys(fromSpec).length > 0
      ? fromSpec
      : (filterProperties['scheduler_hints'] as Plain | null | undefined);
  const group: unknown = hints?.['group'];
  const [hint] = Array.isArray(group) ? (group as readonly unknown[]) : [group];
  return typeof hint === 'string' && hint !== '' ? hint : null;
}
