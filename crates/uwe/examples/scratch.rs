use std::path::Path; use std::time::Instant; use uwe::*;
fn main(){
 let dir=std::env::args().nth(1).unwrap(); let refd=std::env::args().nth(2).unwrap();
 let texts:serde_json::Value=serde_json::from_slice(&std::fs::read(format!("{refd}/../texts.json")).unwrap()).unwrap();
 let texts:Vec<String>=texts["texts50"].as_array().unwrap().iter().map(|x|x.as_str().unwrap().to_string()).collect();
 let bytes=std::fs::read(format!("{refd}/reference.safetensors")).unwrap();
 let st=safetensors::SafeTensors::deserialize(&bytes).unwrap();
 let f=|n:&str|->Vec<f32>{st.tensor(n).unwrap().data().chunks(4).map(|b|f32::from_le_bytes(b.try_into().unwrap())).collect()};
 let ids:Vec<i64>=st.tensor("input_ids").unwrap().data().chunks(8).map(|b|i64::from_le_bytes(b.try_into().unwrap())).collect();
 let mut f32states=vec![];
 for (p,th) in [(Precision::F32,1),(Precision::F32,2),(Precision::Bf16,1),(Precision::Int16,1)] {
  let t=Instant::now();
  let c=Compute::new(th,None).unwrap();
  let e=Encoder::open(Path::new(&dir),EncoderOptions{precision:p,max_tokens:128,..Default::default()},c).unwrap();
  println!("{p} open {:?} {:?}",t.elapsed(),e.compute());
  let enc=e.encode(&texts).unwrap();
  let got:Vec<i64>=enc.tokens.iter().flat_map(|t|t.ids.iter().map(|x|*x as i64)).collect();
  println!("ids equal {}",got==ids);
  let want=f("token_embeddings");
  println!("state maxdiff {:e}",want.iter().zip(enc.states.values()).map(|(a,b)|(a-b).abs()).fold(0.,f32::max));
  let pooled:Vec<f32>=(0..50).flat_map(|i|e.pool(enc.states.text(i))).collect();
  println!("pooled maxdiff {:e}",f("mean_pooled").iter().zip(&pooled).map(|(a,b)|(a-b).abs()).fold(0.,f32::max));
  let unit:Vec<f32>=(0..50).flat_map(|i|e.pool_to_unit(enc.states.text(i))).collect();
  println!("unit maxdiff {:e}",f("st_encode_batched").iter().zip(&unit).map(|(a,b)|(a-b).abs()).fold(0.,f32::max));
  if f32states.is_empty(){f32states=enc.states.values().to_vec();}
  let d=enc.states.dimension(); let mut worst=1f64;
  for (a,b) in f32states.chunks(d).zip(enc.states.values().chunks(d)){ let dot:f64=a.iter().zip(b).map(|(x,y)|*x as f64* *y as f64).sum(); let n=|x:&[f32]|x.iter().map(|v|(*v as f64).powi(2)).sum::<f64>().sqrt(); worst=worst.min(dot/n(a)/n(b)); }
  println!("worst token cosine {worst:.7}");
  let many:Vec<&String>=(0..40).flat_map(|_|texts.iter()).collect();
  let t=Instant::now(); let toks=e.tokenize(&many).unwrap(); let tt=t.elapsed().as_secs_f64();
  let n:usize=toks.iter().map(|t|t.ids.len()).sum();
  let mut best=f64::MAX; for _ in 0..4 { let t=Instant::now(); e.encode_tokens(&toks).unwrap(); best=best.min(t.elapsed().as_secs_f64()); }
  println!("{} texts {} tokens: tokenise {:.4}s encode {:.3}s = {:.0} texts/s {:.0} tok/s",many.len(),n,tt,best,many.len() as f64/best,n as f64/best);
  let one=["machine learning engineer"]; let mut b2=f64::MAX; for _ in 0..200 {let t=Instant::now(); e.encode(&one).unwrap(); b2=b2.min(t.elapsed().as_secs_f64());}
  println!("one text {:.3} ms",b2*1e3);
 }
}
