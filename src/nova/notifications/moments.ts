// Which notifications exist, by what each consumer calls them (nova-compute-contract appendix B.2).

export interface MomentNames {
  /** `compute.instance.<legacy>.<phase>`; null: consumers of the old form are not told. */
  readonly legacy: string | null;
  /** `instance.<versioned>.<phase>`. */
  readonly versioned: string;
  readonly payload:
    | 'InstanceActionPayload'
    | 'InstanceCreatePayload'
    | 'InstanceActionSnapshotPayload'
    | 'InstanceActionRebuildPayload'
    | 'InstanceActionRescuePayload'
    | 'InstanceActionResizePrepPayload'
    | 'InstanceExistsPayload'
    | 'InstanceActionVolumePayload'
    | 'InstanceActionVolumeSwapPayload';
  /** The old form has one notification, without a phase, of what succeeded. */
  readonly isSingle?: boolean;
  /** The phases whose legacy payload carries the addresses. */
  readonly fixedIps?: readonly Phase[];
}

/** `once`: what is told once has no phase in its name. */
export type Phase = 'start' | 'end' | 'error' | 'once';

const action = (name: string): MomentNames => ({ legacy: name, versioned: name, payload: 'InstanceActionPayload' });
const volume = (legacy: string, versioned: string): MomentNames => ({
  legacy,
  versioned,
  payload: 'InstanceActionVolumePayload',
  isSingle: true,
});

export const moments = {
  create: { legacy: 'create', versioned: 'create', payload: 'InstanceCreatePayload', fixedIps: ['end'] },
  delete: action('delete'),
  shutdown: action('shutdown'),
  soft_delete: action('soft_delete'),
  restore: action('restore'),
  power_off: action('power_off'),
  power_on: action('power_on'),
  reboot: action('reboot'),
  pause: action('pause'),
  unpause: action('unpause'),
  suspend: action('suspend'),
  resume: action('resume'),
  snapshot: { legacy: 'snapshot', versioned: 'snapshot', payload: 'InstanceActionSnapshotPayload' },
  rebuild: { legacy: 'rebuild', versioned: 'rebuild', payload: 'InstanceActionRebuildPayload', fixedIps: ['end'] },
  rescue: { legacy: 'rescue', versioned: 'rescue', payload: 'InstanceActionRescuePayload', fixedIps: ['start', 'end'] },
  unrescue: { ...action('unrescue'), fixedIps: ['start', 'end'] },
  shelve: action('shelve'),
  shelve_offload: action('shelve_offload'),
  unshelve: action('unshelve'),
  resize_prep: { legacy: 'resize.prep', versioned: 'resize_prep', payload: 'InstanceActionResizePrepPayload' },
  resize: action('resize'),
  resize_finish: {
    legacy: 'finish_resize',
    versioned: 'resize_finish',
    payload: 'InstanceActionPayload',
    fixedIps: ['start', 'end'],
  },
  resize_confirm: {
    legacy: 'resize.confirm',
    versioned: 'resize_confirm',
    payload: 'InstanceActionPayload',
    fixedIps: ['end'],
  },
  resize_revert: { legacy: 'resize.revert', versioned: 'resize_revert', payload: 'InstanceActionPayload' },
  exists: { legacy: 'exists', versioned: 'exists', payload: 'InstanceExistsPayload' },
  interface_attach: { legacy: null, versioned: 'interface_attach', payload: 'InstanceActionPayload' },
  interface_detach: { legacy: null, versioned: 'interface_detach', payload: 'InstanceActionPayload' },
  volume_attach: volume('volume.attach', 'volume_attach'),
  volume_detach: volume('volume.detach', 'volume_detach'),
  volume_swap: { legacy: null, versioned: 'volume_swap', payload: 'InstanceActionVolumeSwapPayload' },
} as const satisfies Record<string, MomentNames>;

export type Moment = keyof typeof moments;
