//! What kernels of register tiles are, instruction by instruction.

use brolga_codegen::x86::{TileKey, assemble_tile, disassemble};
use brolga_ir::{TileFamily, TileKind};
use expect_test::expect;

#[test]
fn listing_of_a_small_avx512_kernel() {
    let key = TileKey {
        family: TileFamily::Avx512,
        kind: TileKind::F32,
        rows: 2,
        vectors: 1,
        unit_k: true,
        ahead: false,
    };
    expect![[r#"
        0000: vpxord %zmm0,%zmm0,%zmm0
        0006: vpxord %zmm1,%zmm1,%zmm1
        000c: mov 0x38(%rdi),%rax
        0010: cmp $0,%rax
        0014: jle 0x0000000000000175
        001a: mov 0x48(%rdi),%rcx
        001e: cmp $0,%rcx
        0022: jle 0x0000000000000175
        0028: mov 0x30(%rdi),%rdx
        002c: cmp $0,%rdx
        0030: jle 0x0000000000000175
        0036: mov (%rdi),%rsi
        0039: mov 0x18(%rdi),%r8
        003d: mov 8(%rdi),%r9
        0041: cmp $4,%rdx
        0045: jl 0x00000000000000D9
        004b: prefetcht0 0x400(%r9)
        0053: vmovups (%r9),%zmm2
        0059: vfmadd231ps (%rsi){1to16},%zmm2,%zmm0
        005f: vfmadd231ps (%rsi,%r8){1to16},%zmm2,%zmm1
        0066: prefetcht0 0x480(%r9)
        006e: vmovups 0x80(%r9),%zmm2
        0075: vfmadd231ps 4(%rsi){1to16},%zmm2,%zmm0
        007c: vfmadd231ps 4(%rsi,%r8){1to16},%zmm2,%zmm1
        0084: prefetcht0 0x500(%r9)
        008c: vmovups 0x100(%r9),%zmm2
        0093: vfmadd231ps 8(%rsi){1to16},%zmm2,%zmm0
        009a: vfmadd231ps 8(%rsi,%r8){1to16},%zmm2,%zmm1
        00a2: prefetcht0 0x580(%r9)
        00aa: vmovups 0x180(%r9),%zmm2
        00b1: vfmadd231ps 0xC(%rsi){1to16},%zmm2,%zmm0
        00b8: vfmadd231ps 0xC(%rsi,%r8){1to16},%zmm2,%zmm1
        00c0: add $0x10,%rsi
        00c4: add $0x200,%r9
        00cb: sub $4,%rdx
        00cf: cmp $4,%rdx
        00d3: jge 0x000000000000004B
        00d9: cmp $1,%rdx
        00dd: jl 0x0000000000000117
        00e3: prefetcht0 0x400(%r9)
        00eb: vmovups (%r9),%zmm2
        00f1: vfmadd231ps (%rsi){1to16},%zmm2,%zmm0
        00f7: vfmadd231ps (%rsi,%r8){1to16},%zmm2,%zmm1
        00fe: add $4,%rsi
        0102: add $0x80,%r9
        0109: sub $1,%rdx
        010d: cmp $1,%rdx
        0111: jge 0x00000000000000E3
        0117: mov 0x30(%rdi),%rdx
        011b: sub $1,%rcx
        011f: cmp $0,%rcx
        0123: je 0x0000000000000140
        0129: mov 0x30(%rdi),%r10
        012d: imul $4,%r10
        0134: sub %r10,%rsi
        0137: add 0x50(%rdi),%rsi
        013b: jmp 0x0000000000000041
        0140: sub $1,%rax
        0144: cmp $0,%rax
        0148: je 0x0000000000000175
        014e: mov 0x48(%rdi),%rcx
        0152: mov 0x30(%rdi),%r10
        0156: imul $4,%r10
        015d: lea -1(%rcx),%r11
        0161: imul 0x50(%rdi),%r11
        0166: add %r11,%r10
        0169: sub %r10,%rsi
        016c: add 0x40(%rdi),%rsi
        0170: jmp 0x0000000000000041
        0175: mov 0x10(%rdi),%rax
        0179: mov 0x28(%rdi),%rcx
        017d: mov 0x58(%rdi),%rdx
        0181: mov 0x60(%rdi),%rsi
        0185: cmp $0x10,%rdx
        0189: jl 0x00000000000001B7
        018f: cmp $0,%rsi
        0193: je 0x00000000000001A6
        0199: vaddps (%rax),%zmm0,%zmm0
        019f: vaddps (%rax,%rcx),%zmm1,%zmm1
        01a6: vmovups %zmm0,(%rax)
        01ac: vmovups %zmm1,(%rax,%rcx)
        01b3: vzeroupper
        01b6: ret
        01b7: cmp $0,%rsi
        01bb: je 0x00000000000001EA
        01c1: mov $0xFFFFFFFFFFFFFFFF,%rsi
        01c8: bzhi %rdx,%rsi,%rsi
        01cd: kmovw %esi,%k1
        01d1: vmovups (%rax),%zmm2{%k1}{z}
        01d7: vaddps %zmm2,%zmm0,%zmm0
        01dd: vmovups (%rax,%rcx),%zmm2{%k1}{z}
        01e4: vaddps %zmm2,%zmm1,%zmm1
        01ea: mov $0xFFFFFFFFFFFFFFFF,%rsi
        01f1: bzhi %rdx,%rsi,%rsi
        01f6: kmovw %esi,%k1
        01fa: vmovups %zmm0,(%rax){%k1}
        0200: vmovups %zmm1,(%rax,%rcx){%k1}
        0207: vzeroupper
        020a: ret
    "#]]
    .assert_eq(&disassemble(&assemble_tile(key).unwrap()));
}

#[test]
fn listing_of_a_small_avx2_kernel() {
    let key = TileKey {
        family: TileFamily::Avx2,
        kind: TileKind::F32,
        rows: 1,
        vectors: 1,
        unit_k: false,
        ahead: false,
    };
    expect![[r#"
        0000: vxorps %ymm0,%ymm0,%ymm0
        0004: mov 0x38(%rdi),%rax
        0008: cmp $0,%rax
        000c: jle 0x0000000000000161
        0012: mov 0x48(%rdi),%rcx
        0016: cmp $0,%rcx
        001a: jle 0x0000000000000161
        0020: mov 0x30(%rdi),%rdx
        0024: cmp $0,%rdx
        0028: jle 0x0000000000000161
        002e: mov (%rdi),%rsi
        0031: mov 0x18(%rdi),%r8
        0035: mov 8(%rdi),%r8
        0039: mov 0x20(%rdi),%r9
        003d: cmp $4,%rdx
        0041: jl 0x00000000000000D0
        0047: prefetcht0 0x400(%r8)
        004f: vbroadcastss (%rsi),%ymm1
        0054: vmovups (%r8),%ymm2
        0059: vfmadd231ps %ymm1,%ymm2,%ymm0
        005e: add %r9,%rsi
        0061: prefetcht0 0x480(%r8)
        0069: vbroadcastss (%rsi),%ymm1
        006e: vmovups 0x80(%r8),%ymm2
        0077: vfmadd231ps %ymm1,%ymm2,%ymm0
        007c: add %r9,%rsi
        007f: prefetcht0 0x500(%r8)
        0087: vbroadcastss (%rsi),%ymm1
        008c: vmovups 0x100(%r8),%ymm2
        0095: vfmadd231ps %ymm1,%ymm2,%ymm0
        009a: add %r9,%rsi
        009d: prefetcht0 0x580(%r8)
        00a5: vbroadcastss (%rsi),%ymm1
        00aa: vmovups 0x180(%r8),%ymm2
        00b3: vfmadd231ps %ymm1,%ymm2,%ymm0
        00b8: add %r9,%rsi
        00bb: add $0x200,%r8
        00c2: sub $4,%rdx
        00c6: cmp $4,%rdx
        00ca: jge 0x0000000000000047
        00d0: cmp $1,%rdx
        00d4: jl 0x0000000000000109
        00da: prefetcht0 0x400(%r8)
        00e2: vbroadcastss (%rsi),%ymm1
        00e7: vmovups (%r8),%ymm2
        00ec: vfmadd231ps %ymm1,%ymm2,%ymm0
        00f1: add %r9,%rsi
        00f4: add $0x80,%r8
        00fb: sub $1,%rdx
        00ff: cmp $1,%rdx
        0103: jge 0x00000000000000DA
        0109: mov 0x30(%rdi),%rdx
        010d: sub $1,%rcx
        0111: cmp $0,%rcx
        0115: je 0x000000000000012F
        011b: mov 0x30(%rdi),%r10
        011f: imul %r9,%r10
        0123: sub %r10,%rsi
        0126: add 0x50(%rdi),%rsi
        012a: jmp 0x000000000000003D
        012f: sub $1,%rax
        0133: cmp $0,%rax
        0137: je 0x0000000000000161
        013d: mov 0x48(%rdi),%rcx
        0141: mov 0x30(%rdi),%r10
        0145: imul %r9,%r10
        0149: lea -1(%rcx),%r11
        014d: imul 0x50(%rdi),%r11
        0152: add %r11,%r10
        0155: sub %r10,%rsi
        0158: add 0x40(%rdi),%rsi
        015c: jmp 0x000000000000003D
        0161: mov 0x10(%rdi),%rax
        0165: mov 0x28(%rdi),%rcx
        0169: mov 0x58(%rdi),%rcx
        016d: mov 0x60(%rdi),%rdx
        0171: cmp $8,%rcx
        0175: jl 0x0000000000000191
        017b: cmp $0,%rdx
        017f: je 0x0000000000000189
        0185: vaddps (%rax),%ymm0,%ymm0
        0189: vmovups %ymm0,(%rax)
        018d: vzeroupper
        0190: ret
        0191: cmp $0,%rdx
        0195: je 0x00000000000001C5
        019b: movabs $0x706050403020100,%rdx
        01a5: vmovq %rdx,%xmm1
        01aa: vpmovzxbd %xmm1,%ymm1
        01af: vmovd %ecx,%xmm2
        01b3: vpbroadcastd %xmm2,%ymm2
        01b8: vpcmpgtd %ymm1,%ymm2,%ymm2
        01bc: vmaskmovps (%rax),%ymm2,%ymm1
        01c1: vaddps %ymm1,%ymm0,%ymm0
        01c5: movabs $0x706050403020100,%rdx
        01cf: vmovq %rdx,%xmm1
        01d4: vpmovzxbd %xmm1,%ymm1
        01d9: vmovd %ecx,%xmm2
        01dd: vpbroadcastd %xmm2,%ymm2
        01e2: vpcmpgtd %ymm1,%ymm2,%ymm2
        01e6: vmaskmovps %ymm0,%ymm2,(%rax)
        01eb: vzeroupper
        01ee: ret
    "#]]
    .assert_eq(&disassemble(&assemble_tile(key).unwrap()));
}

#[test]
fn text_of_the_vector_ir() {
    let key = TileKey {
        family: TileFamily::Avx2,
        kind: TileKind::F32,
        rows: 1,
        vectors: 1,
        unit_k: true,
        ahead: false,
    };
    expect![[r#"
        fn brolga_tile_avx2_1x8_k1(g0) avx2 {
          v1 = zero
          g2 = load [g0 + 56]
          if g2 <= 0 jump L0
          g3 = load [g0 + 72]
          if g3 <= 0 jump L0
          g4 = load [g0 + 48]
          if g4 <= 0 jump L0
          g5 = load [g0]
          g6 = load [g0 + 24]
          g7 = load [g0 + 8]
         L1:
          if g4 < 4 jump L4
         L3:
          prefetch.l1 [g7 + 1024]
          v8 = broadcast f32x8 [g5]
          v9 = load f32x8 [g7]
          v1 += f32x8 v9 * v8
          prefetch.l1 [g7 + 1152]
          v10 = broadcast f32x8 [g5 + 4]
          v11 = load f32x8 [g7 + 128]
          v1 += f32x8 v11 * v10
          prefetch.l1 [g7 + 1280]
          v12 = broadcast f32x8 [g5 + 8]
          v13 = load f32x8 [g7 + 256]
          v1 += f32x8 v13 * v12
          prefetch.l1 [g7 + 1408]
          v14 = broadcast f32x8 [g5 + 12]
          v15 = load f32x8 [g7 + 384]
          v1 += f32x8 v15 * v14
          g5 += 16
          g7 += 512
          g4 -= 4
          if g4 >= 4 jump L3
         L4:
          if g4 < 1 jump L6
         L5:
          prefetch.l1 [g7 + 1024]
          v16 = broadcast f32x8 [g5]
          v17 = load f32x8 [g7]
          v1 += f32x8 v17 * v16
          g5 += 4
          g7 += 128
          g4 -= 1
          if g4 >= 1 jump L5
         L6:
          g4 = load [g0 + 48]
          g3 -= 1
          if g3 == 0 jump L2
          g18 = load [g0 + 48]
          g18 *= 4
          g5 -= g18
          g5 += [g0 + 80]
          jump L1
         L2:
          g2 -= 1
          if g2 == 0 jump L0
          g3 = load [g0 + 72]
          g19 = load [g0 + 48]
          g19 *= 4
          g20 = lea [g3 - 1]
          g20 *= [g0 + 80]
          g19 += g20
          g5 -= g19
          g5 += [g0 + 64]
          jump L1
         L0:
          g21 = load [g0 + 16]
          g22 = load [g0 + 40]
          g23 = load [g0 + 88]
          g24 = load [g0 + 96]
          if g23 < 8 jump L7
          if g24 == 0 jump L8
          v1 = add f32x8 v1, [g21]
         L8:
          store f32x8 [g21], v1
          return
         L7:
          if g24 == 0 jump L9
          k25 = first_lanes g23, skip 0
          v28 = load f32x8 [g21], k25
          v1 = add f32x8 v1, v28
         L9:
          k29 = first_lanes g23, skip 0
          store f32x8 [g21], v1, k29
          return
        }
    "#]]
    .assert_eq(&brolga_codegen::x86::tile::build(key).unwrap().to_string());
}
